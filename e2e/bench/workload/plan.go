package workload

import (
	"math"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
)

// Sizes is how many of the documents are orders and customers.
func Sizes(docs int) (orders, customers int) { return docs - docs/3, docs / 3 }

// Update is one update of a document by _id.
type Update struct{ Filter, Change bson.Raw }

// Writes are what one collection gets of a batch: the server sees the inserts, then the updates in order, then the deletes.
type Writes struct {
	Inserts []bson.Raw
	Updates []Update
	Deletes []bson.Raw
}

// Transaction is one transaction of four operations.
type Transaction struct {
	SetOrder     Update
	Insert       bson.Raw
	SetCustomer  Update
	PushCustomer Update
}

// Batch is a run of operations.
type Batch struct {
	Orders, Customers Writes
	Transactions      []Transaction
}

// live are the keys of one collection, the hot ones first.
type live struct {
	r    *Random
	keys []int
	next int
}

func newLive(n int, r *Random) *live {
	l := &live{r: r, keys: make([]int, n), next: n}
	for i := range l.keys {
		l.keys[i] = i
	}
	r.Shuffle(l.keys)
	return l
}

// hot draws a key by Zipf-Mandelbrot: P(rank) ~ 1/(rank+100).
func (l *live) hot() int {
	const q = 100.0
	n := len(l.keys)
	i := int(q*math.Pow((float64(n)+q)/q, l.r.Float()) - q)
	return l.keys[min(i, n-1)]
}

// take removes a key, uniformly.
func (l *live) take() int {
	last := len(l.keys) - 1
	i := l.r.To(float64(last + 1))
	k := l.keys[i]
	l.keys[i] = l.keys[last]
	l.keys = l.keys[:last]
	return k
}

func (l *live) add() int {
	l.keys = append(l.keys, l.next)
	l.next++
	return l.next - 1
}

// Plan draws the operations, batch by batch: of each batch 60 % set one to three fields, 15 % insert, 10 % delete, 10 % push to an
// array and 5 % are transactions. Every operation meets a live document and changes it.
type Plan struct {
	g                 *Generator
	orders, customers *live
	rev, left         int
}

// NewPlan begins the operations on so many loaded documents.
func NewPlan(seed uint32, docs, ops int) *Plan {
	g := NewGenerator(seed + 1)
	o, c := Sizes(docs)
	return &Plan{g: g, orders: newLive(o, g.Random), customers: newLive(c, g.Random), left: ops}
}

// HotOrder is the _id of the order that is written most often.
func (p *Plan) HotOrder() string { return OrderID(p.orders.keys[0]).Hex() }

// Next draws a batch of n operations, fewer at the end, none when all are drawn.
func (p *Plan) Next(n int) (Batch, bool) {
	var b Batch
	n = min(n, p.left)
	if n == 0 {
		return b, false
	}
	p.left -= n
	transactions := 0
	for range n {
		p.rev++
		orders := p.g.Float() < .6667
		l, w := p.customers, &b.Customers
		if orders {
			l, w = p.orders, &b.Orders
		}
		switch x := p.g.Float(); {
		case x < .60:
			id := filter(orders, l.hot())
			w.Updates = append(w.Updates, Update{id, operator("$set", p.set(orders))})
		case x < .75:
			w.Inserts = append(w.Inserts, p.insert(orders, l.add()))
		case x < .85:
			w.Deletes = append(w.Deletes, filter(orders, l.take()))
		case x < .95:
			id := filter(orders, l.hot())
			w.Updates = append(w.Updates, Update{id, p.push(orders)})
		default:
			transactions++
		}
	}
	for range transactions {
		p.rev++
		o, c := filter(true, p.orders.hot()), filter(false, p.customers.hot())
		b.Transactions = append(b.Transactions, Transaction{
			SetOrder:     Update{o, operator("$set", p.set(true))},
			Insert:       p.insert(true, p.orders.add()),
			SetCustomer:  Update{c, operator("$set", p.set(false))},
			PushCustomer: Update{c, p.push(false)},
		})
	}
	return b, true
}

func (p *Plan) set(order bool) []byte {
	if order {
		return p.g.setOrder(p.rev)
	}
	return p.g.setCustomer(p.rev)
}

func (p *Plan) insert(order bool, n int) bson.Raw {
	if order {
		return p.g.Order(n)
	}
	return p.g.Customer(n)
}

func (p *Plan) push(order bool) bson.Raw {
	array := "activity"
	if order {
		array = "history"
	}
	return operator("$push", bsoncore.BuildDocument(nil, bsoncore.AppendDocumentElement(nil, array, p.g.event())))
}

func operator(name string, fields []byte) bson.Raw {
	return bsoncore.BuildDocument(nil, bsoncore.AppendDocumentElement(nil, name, fields))
}

func filter(order bool, n int) bson.Raw {
	if order {
		return bsoncore.BuildDocument(nil, bsoncore.AppendObjectIDElement(nil, "_id", OrderID(n)))
	}
	return bsoncore.BuildDocument(nil, bsoncore.AppendStringElement(nil, "_id", customerID(n)))
}
