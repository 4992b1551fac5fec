package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
)

// The sums are those of the same draws by CPython 3.11 and pymongo's bson.
const (
	documentsSum   = "581a982758e068cc7952ec61e31bf09905c0bbbf799658016e43b72eec6e80e3"
	documentsBytes = 2947835
	operationsSum  = "6fe3258f7f4df5bb70262f3148abe1b0a0247a0ccf120ecc307057968dab298a"
)

func TestDocuments(t *testing.T) {
	h, n := sha256.New(), 0
	g := NewGenerator(1)
	add := func(d bson.Raw) {
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		n += len(d)
		h.Write(d)
	}
	for i := range 2000 {
		add(g.Order(i))
	}
	for i := range 1000 {
		add(g.Customer(i))
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != documentsSum || n != documentsBytes {
		t.Errorf("%d bytes %s, want %d %s; the first order is %s", n, sum, documentsBytes, documentsSum, NewGenerator(1).Order(0))
	}
}

func TestOperations(t *testing.T) {
	h := sha256.New()
	p := NewPlan(1, 3000, 5000)
	batches, transactions := 0, 0
	for b, ok := p.Next(500); ok; b, ok = p.Next(500) {
		batches++
		transactions += len(b.Transactions)
		b.Orders.hash(h)
		b.Customers.hash(h)
		for _, x := range b.Transactions {
			(&Writes{Inserts: []bson.Raw{x.Insert}, Updates: []Update{x.SetOrder}}).hash(h)
			(&Writes{Updates: []Update{x.SetCustomer, x.PushCustomer}}).hash(h)
		}
	}
	if batches != 10 || transactions != 278 {
		t.Errorf("%d batches with %d transactions, want 10 with 278", batches, transactions)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != operationsSum {
		t.Errorf("operations are %s, want %s", sum, operationsSum)
	}
}

func (w *Writes) hash(h hash.Hash) {
	for _, d := range w.Inserts {
		h.Write(d)
	}
	for _, u := range w.Updates {
		h.Write(u.Filter)
		h.Write(u.Change)
	}
	for _, d := range w.Deletes {
		h.Write(d)
	}
}

func TestSample(t *testing.T) {
	r := NewRandom(1001)
	if got, want := r.Sample(1000, 10), []int{815, 950, 60, 778, 202, 883, 967, 93, 568, 924}; !slices.Equal(got, want) {
		t.Errorf("of 1000: %v, want %v", got, want)
	}
	if got, want := r.Sample(20, 10), []int{12, 5, 13, 11, 19, 15, 9, 3, 17, 0}; !slices.Equal(got, want) {
		t.Errorf("of 20: %v, want %v", got, want)
	}
}
