package segment

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/afterimagedb/afterimage"
)

// documents makes n rows of about 1 KB that look and compress like BSON documents of a shop: field names that repeat,
// words, numbers, decimals, dates.
func documents(n int) []afterimage.Change {
	r := rand.New(rand.NewPCG(1, 1))
	words := make([]string, 2000)
	syllables := []string{"ka", "lo", "mi", "ran", "te", "vo", "sul", "per", "din", "ar", "on", "ex", "tri", "quo", "bel", "nas"}
	for i := range words {
		for range 1 + r.IntN(4) {
			words[i] += syllables[r.IntN(len(syllables))]
		}
	}
	text := func(b []byte, name string, size int) []byte {
		b = append(append(append(b, 2), name...), 0)
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		for len(b)-at < size {
			x := r.Float64()
			b = append(append(b, words[int(2000*x*x)]...), ' ')
		}
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-3))
		return append(b, 0)
	}
	number := func(b []byte, name string, typ byte, v uint64) []byte {
		return binary.LittleEndian.AppendUint64(append(append(append(b, typ), name...), 0), v)
	}
	out := make([]afterimage.Change, n)
	for i := range out {
		b := binary.BigEndian.AppendUint64(append([]byte{0, 0, 0, 0, 7}, "_id\x00\x67\x00\x00\x00"...), uint64(i))
		b = number(b, "seq", 18, uint64(i))
		b = text(b, "customer", 14)
		b = number(b, "created", 9, 1735689600000+r.Uint64N(31536000000))
		b = number(b, "updated", 9, 1735689600000+r.Uint64N(31536000000))
		for j := range 4 {
			b = text(b, fmt.Sprintf("items.%d.name", j), 30)
			b = number(b, "weight", 1, r.Uint64())
			b = number(append(number(b, "price", 19, r.Uint64N(5000000)), 0, 0, 0, 0, 0, 0, 0x3c, 0x30), "no", 18, r.Uint64N(300))
		}
		b = text(b, "street", 20)
		b = text(b, "notes", 470)
		b = append(b, 0)
		binary.LittleEndian.PutUint32(b, uint32(len(b)))
		out[i] = afterimage.Change{
			Time: afterimage.MongoTime(1795252057, 7), Wall: 1795252057123, Order: afterimage.OrderImage, Lane: 1,
			Op: afterimage.OpPut, From: afterimage.FromImage, Table: afterimage.TableID{0x70, 15: 9},
			Key: b[9:21], Body: b,
		}
	}
	return out
}
