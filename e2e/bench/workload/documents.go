package workload

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
)

var (
	epoch     = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	states    = []string{"new", "paid", "picked", "packed", "shipped", "delivered", "returned", "cancelled"}
	countries = []string{"DE", "FR", "US", "GB", "NL", "SE", "PL", "IT", "ES", "JP"}
	tiers     = []string{"bronze", "silver", "gold", "platinum"}
	syllables = []string{"ka", "lo", "mi", "ran", "te", "vo", "sul", "per", "din", "ar", "on", "ex", "tri", "quo", "bel", "nas"}
)

// Generator draws documents. It is for one goroutine.
type Generator struct {
	*Random
	words []string
}

// NewGenerator seeds one; the words are the same for every seed.
func NewGenerator(seed uint32) *Generator {
	w := NewRandom(7)
	g := &Generator{Random: NewRandom(seed)}
	for range 2000 {
		var b strings.Builder
		for range 1 + w.Below(4) {
			b.WriteString(syllables[w.Below(len(syllables))])
		}
		g.words = append(g.words, b.String())
	}
	return g
}

// Text is words of n bytes or a little more, the earlier ones more often.
func (g *Generator) Text(n int) string {
	out := make([]byte, 0, n+16)
	for size := 0; size < n; {
		x := g.Float()
		w := g.words[int(float64(len(g.words))*(x*x))]
		if size > 0 {
			out = append(out, ' ')
		}
		out = append(out, w...)
		size += len(w) + 1
	}
	return string(out)
}

func (g *Generator) when() int64 {
	s := g.To(31_536_000)
	return epoch + int64(s)*1000 + int64(g.To(1000))
}

func (g *Generator) money(top float64) primitive.Decimal128 {
	const exponent = 6176 - 2 // of cents
	return primitive.NewDecimal128(exponent<<49, uint64(int64(g.Float()*top*100)))
}

func (g *Generator) address() []byte {
	i, d := open()
	d = bsoncore.AppendStringElement(d, "street", g.Text(16))
	d = bsoncore.AppendInt32Element(d, "no", int32(g.To(300)))
	d = bsoncore.AppendStringElement(d, "city", g.Text(8))
	d = bsoncore.AppendStringElement(d, "zip", fmt.Sprintf("%05d", g.To(99999)))
	d = bsoncore.AppendStringElement(d, "country", countries[g.To(10)])
	lat, lon := g.latitude(), float64(g.Float()*360)-180
	d = bsoncore.AppendDocumentElement(d, "geo", bsoncore.BuildDocument(nil,
		bsoncore.AppendDoubleElement(bsoncore.AppendDoubleElement(nil, "lat", lat), "lon", lon)))
	return shut(d, i)
}

// The conversion keeps a compiler from joining the two operations, which would round otherwise.
func (g *Generator) latitude() float64 { return float64(g.Float()*180) - 90 }

// Order is document n of shop.orders.
func (g *Generator) Order(n int) bson.Raw {
	items := make([][]byte, 2+g.To(3))
	for k := range items {
		i, d := open()
		d = bsoncore.AppendStringElement(d, "sku", fmt.Sprintf("SKU-%06d", g.To(50000)))
		d = bsoncore.AppendStringElement(d, "name", g.Text(14))
		d = bsoncore.AppendInt32Element(d, "qty", int32(1+g.To(9)))
		d = bsoncore.AppendDecimal128Element(d, "price", g.money(500))
		d = appendStrings(d, "tags", g.words[g.To(200)], g.words[g.To(200)])
		items[k] = shut(d, i)
	}
	i, d := open()
	d = bsoncore.AppendObjectIDElement(d, "_id", OrderID(n))
	d = bsoncore.AppendInt64Element(d, "seq", int64(n))
	d = bsoncore.AppendStringElement(d, "customer", customerID(g.To(100000)))
	d = bsoncore.AppendStringElement(d, "status", states[g.To(8)])
	d = bsoncore.AppendDecimal128Element(d, "total", g.money(50000))
	d = bsoncore.AppendDateTimeElement(d, "created", g.when())
	d = bsoncore.AppendDateTimeElement(d, "updated", g.when())
	d = appendDocuments(d, "items", items...)
	d = bsoncore.AppendDocumentElement(d, "ship", g.address())
	d = bsoncore.AppendBooleanElement(d, "paid", g.Float() < .7)
	d = bsoncore.AppendDoubleElement(d, "weight", g.Float()*40)
	d = bsoncore.AppendStringElement(d, "notes", g.Text(210))
	d = bsoncore.AppendNullElement(d, "coupon")
	d = appendDocuments(d, "history", bsoncore.BuildDocument(nil,
		bsoncore.AppendStringElement(bsoncore.AppendDateTimeElement(nil, "at", g.when()), "st", "new")))
	d = bsoncore.AppendInt32Element(d, "rev", 0)
	return shut(d, i)
}

// Customer is document n of shop.customers.
func (g *Generator) Customer(n int) bson.Raw {
	i, d := open()
	d = bsoncore.AppendStringElement(d, "_id", customerID(n))
	first, last := g.Text(6), g.Text(8)
	d = bsoncore.AppendDocumentElement(d, "name", bsoncore.BuildDocument(nil,
		bsoncore.AppendStringElement(bsoncore.AppendStringElement(nil, "first", first), "last", last)))
	d = bsoncore.AppendStringElement(d, "email", "c"+strconv.Itoa(n)+"@example.test")
	d = bsoncore.AppendDateTimeElement(d, "since", g.when())
	d = bsoncore.AppendStringElement(d, "tier", tiers[g.To(4)])
	d = bsoncore.AppendDecimal128Element(d, "balance", g.money(50000))
	d = bsoncore.AppendInt64Element(d, "points", int64(g.To(1e6)))
	d = appendDocuments(d, "addresses", g.address(), g.address())
	j, p := open()
	p = bsoncore.AppendBooleanElement(p, "news", g.Float() < .5)
	p = bsoncore.AppendStringElement(p, "lang", strings.ToLower(countries[g.To(10)]))
	dark, size := g.Float() < .5, int32(g.To(5))
	p = bsoncore.AppendDocumentElement(p, "theme", bsoncore.BuildDocument(nil,
		bsoncore.AppendInt32Element(bsoncore.AppendBooleanElement(nil, "dark", dark), "size", size)))
	d = bsoncore.AppendDocumentElement(d, "prefs", shut(p, j))
	tags := make([]string, 5)
	for k := range tags {
		tags[k] = g.words[g.To(300)]
	}
	d = appendStrings(d, "tags", tags...)
	d = bsoncore.AppendStringElement(d, "bio", g.Text(340))
	d = appendDocuments(d, "activity")
	d = bsoncore.AppendInt32Element(d, "rev", 0)
	return shut(d, i)
}

// event is what a $push appends.
func (g *Generator) event() []byte {
	i, d := open()
	d = bsoncore.AppendDateTimeElement(d, "at", g.when())
	d = bsoncore.AppendStringElement(d, "st", states[g.To(8)])
	d = bsoncore.AppendStringElement(d, "by", g.words[g.To(500)])
	return shut(d, i)
}

// setOrder are the fields of a $set on an order.
func (g *Generator) setOrder(rev int) []byte {
	i, d := open()
	d = bsoncore.AppendInt32Element(d, "rev", int32(rev))
	x := g.Float()
	if x < .4 {
		d = bsoncore.AppendStringElement(d, "status", states[g.To(8)])
	}
	if x > .3 {
		d = bsoncore.AppendDoubleElement(d, "ship.geo.lat", g.latitude())
	}
	if x > .6 {
		at := g.when()
		if x > .9 {
			d = bsoncore.AppendDecimal128Element(d, "total", g.money(50000))
		} else {
			d = bsoncore.AppendDateTimeElement(d, "updated", at)
		}
	}
	return shut(d, i)
}

// setCustomer are the fields of a $set on a customer.
func (g *Generator) setCustomer(rev int) []byte {
	i, d := open()
	d = bsoncore.AppendInt32Element(d, "rev", int32(rev))
	x := g.Float()
	if x < .4 {
		d = bsoncore.AppendInt32Element(d, "prefs.theme.size", int32(g.To(5)))
	}
	if x > .3 {
		d = bsoncore.AppendDecimal128Element(d, "balance", g.money(50000))
	}
	if x > .6 {
		d = bsoncore.AppendStringElement(d, "addresses.1.city", g.Text(8))
	}
	return shut(d, i)
}

// OrderID is the _id of order n.
func OrderID(n int) (id primitive.ObjectID) {
	text := fmt.Sprintf("%08x%016x", 0x67000000+n/16, 0x5ca1ab1e00000000+n)
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		panic(err) // twenty-four hex digits
	}
	return id
}

func customerID(n int) string { return fmt.Sprintf("C%08d", n) }

func open() (int32, []byte) { return bsoncore.AppendDocumentStart(make([]byte, 0, 256)) }

// shut ends a document that is all of d.
func shut(d []byte, i int32) []byte {
	d = append(d, 0)
	return bsoncore.UpdateLength(d, i, int32(len(d)))
}

func appendStrings(d []byte, name string, values ...string) []byte {
	i, d := bsoncore.AppendArrayElementStart(d, name)
	for k, v := range values {
		d = bsoncore.AppendStringElement(d, strconv.Itoa(k), v)
	}
	d = append(d, 0)
	return bsoncore.UpdateLength(d, i, int32(len(d))-i)
}

func appendDocuments(d []byte, name string, values ...[]byte) []byte {
	i, d := bsoncore.AppendArrayElementStart(d, name)
	for k, v := range values {
		d = bsoncore.AppendDocumentElement(d, strconv.Itoa(k), v)
	}
	d = append(d, 0)
	return bsoncore.UpdateLength(d, i, int32(len(d))-i)
}
