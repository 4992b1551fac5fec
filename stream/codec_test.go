package stream

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
)

func drawBatch(t *rapid.T) *afterimage.Batch {
	pos := rapid.Custom(func(t *rapid.T) afterimage.Position {
		return afterimage.Position{Hi: rapid.Uint64().Draw(t, "hi"), Lo: rapid.Uint64().Draw(t, "lo")}
	})
	b := &afterimage.Batch{BatchHeader: afterimage.BatchHeader{
		Lane:        rapid.String().Draw(t, "lane"),
		Incarnation: rapid.String().Draw(t, "incarnation"),
		Epoch:       rapid.Uint32().Draw(t, "epoch"),
		From:        pos.Draw(t, "from"),
		To:          pos.Draw(t, "to"),
		RestartFrom: pos.Draw(t, "restart"),
		Horizon:     afterimage.Time(rapid.Uint64().Draw(t, "horizon")),
	}}
	b.Notes = rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "notes")
	var prev afterimage.Change
	for range rapid.IntRange(0, 30).Draw(t, "changes") {
		c := prev
		if rapid.Bool().Draw(t, "new entry") {
			c.Time = afterimage.Time(rapid.Uint64().Draw(t, "time"))
			c.Pos = pos.Draw(t, "pos")
			c.Wall = rapid.Int64().Draw(t, "wall")
		}
		c.Order = rapid.Uint32().Draw(t, "order")
		if rapid.Bool().Draw(t, "new table") {
			c.Table = afterimage.TableID{rapid.ByteRange(0, 5).Draw(t, "table")}
		}
		c.Born = afterimage.Born{}
		if rapid.Bool().Draw(t, "is born") {
			c.Born = afterimage.Born{Time: afterimage.Time(rapid.Uint64().Draw(t, "born")), Order: rapid.Uint32().Draw(t, "born order")}
		}
		c.Op = afterimage.Op(rapid.IntRange(1, 5).Draw(t, "op"))
		c.From = afterimage.Provenance(rapid.IntRange(0, 2).Draw(t, "provenance"))
		c.Key = rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		c.Body = rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		b.Changes = append(b.Changes, c)
		prev = c
	}
	return b
}

// plain makes nil and empty slices the same.
func plain(b *afterimage.Batch) *afterimage.Batch {
	c := &afterimage.Batch{BatchHeader: b.BatchHeader}
	for _, n := range b.Notes {
		c.Notes = append(c.Notes, append([]byte{}, n...))
	}
	for _, x := range b.Changes {
		x.Key, x.Body = append([]byte{}, x.Key...), append([]byte{}, x.Body...)
		c.Changes = append(c.Changes, x)
	}
	return c
}

func TestEncodeDecode(t *testing.T) {
	var e Encoder
	var d Decoder
	var buf []byte
	rapid.Check(t, func(t *rapid.T) {
		want := drawBatch(t)
		var err error
		if buf, err = e.Encode(buf[:0], want); err != nil {
			t.Fatal(err)
		}
		got, err := d.Decode(buf)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(plain(got), plain(want)) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		h, err := decodeHeader(buf)
		if err != nil || h != want.BatchHeader {
			t.Fatalf("header %+v: %v", h, err)
		}
	})
}

func TestParts(t *testing.T) {
	var g gatherer
	seq := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), headSize+1, 3000).Draw(t, "encoded")
		copy(want, batchMagic)
		limit := rapid.IntRange(partHead+2, 3000).Draw(t, "limit")
		n := partCount(want, limit)
		for k := 1; k <= n; k++ {
			msg := appendPart(nil, want, k, n, limit)
			if len(msg) > limit {
				t.Fatalf("part %d has %d bytes, limit %d", k, len(msg), limit)
			}
			seq++
			got, err := g.add(msg, seq)
			switch {
			case n > partsMax && err != nil:
				return
			case err != nil:
				t.Fatal(err)
			case k < n && got != nil:
				t.Fatalf("part %d of %d is a batch", k, n)
			case k == n && !bytes.Equal(got, want):
				t.Fatalf("%d parts make %d bytes, want %d", n, len(got), len(want))
			}
		}
	})
}

func TestEachFlippedByteIsFound(t *testing.T) {
	msg, err := EncodeBatch(batchAt(0, 20, 30))
	if err != nil {
		t.Fatal(err)
	}
	for i := range msg {
		msg[i] ^= 0x10
		if _, err := DecodeBatch(msg); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		msg[i] ^= 0x10
		if _, err := DecodeBatch(msg[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	part := appendPart(nil, msg, 1, partCount(msg, 200), 200)
	for i := len(partMagic); i < len(part); i++ {
		part[i] ^= 1
		if _, err := parsePart(part); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d of a part flipped: %v", i, err)
		}
		part[i] ^= 1
	}
}

func TestEncodeRefuses(t *testing.T) {
	huge := batchAt(0, 1, 1)
	huge.Changes[0].Body = make([]byte, BodyBytesMax+1)
	for name, b := range map[string]*afterimage.Batch{
		"body":      huge,
		"operation": {Changes: []afterimage.Change{{Op: 6}}},
		"no op":     {Changes: []afterimage.Change{{}}},
		"changes":   {Changes: make([]afterimage.Change, ChangesMax+1)},
		"notes":     {Notes: make([][]byte, NotesMax+1)},
		"name":      {BatchHeader: afterimage.BatchHeader{Lane: strings.Repeat("x", nameMax+1)}},
	} {
		if _, err := EncodeBatch(b); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func exampleBatch() *afterimage.Batch {
	table := afterimage.TableID{0x7b, 0x1e, 15: 0x42}
	return &afterimage.Batch{
		BatchHeader: afterimage.BatchHeader{
			Lane: "rs0", Incarnation: "6920", Epoch: 1,
			From: afterimage.Position{Hi: 1000}, To: afterimage.Position{Hi: 1002}, RestartFrom: afterimage.Position{Hi: 1000}, Horizon: 1002,
		},
		Notes: [][]byte{[]byte("{}")},
		Changes: []afterimage.Change{
			{Time: 1001, Pos: afterimage.Position{Hi: 1001}, Wall: 7, Op: afterimage.OpInsert, Table: table, Key: []byte("a"), Body: []byte("A1")},
			{Time: 1001, Pos: afterimage.Position{Hi: 1001}, Wall: 7, Order: 1, Op: afterimage.OpDelete, Table: table, Key: []byte("b"), Body: []byte("B")},
			{Time: 1002, Pos: afterimage.Position{Hi: 1002}, Wall: 9, Op: afterimage.OpPut, From: afterimage.FromImage, Table: afterimage.CatalogTable, Born: afterimage.Born{Time: 1000, Order: 3}, Key: []byte("c")},
		},
	}
}

// The page of the format shows the example as hex after each "    hex: ".
func TestExampleOfTheFormatPage(t *testing.T) {
	page, err := os.ReadFile("../docs/format/batch.md")
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for line := range strings.Lines(string(page)) {
		if text, ok := strings.CutPrefix(line, "    hex: "); ok {
			bytesOf, _, _ := strings.Cut(text, "|")
			shown.WriteString(strings.Join(strings.Fields(bytesOf), ""))
		}
	}
	got, err := EncodeBatch(exampleBatch())
	if err != nil {
		t.Fatal(err)
	}
	if shown.String() != hex.EncodeToString(got) {
		t.Fatalf("the page shows\n%s\nthe encoder makes\n%x", shown.String(), got)
	}
	back, err := DecodeBatch(got)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain(back), plain(exampleBatch())) {
		a, _ := json.Marshal(back)
		t.Fatalf("decoded %s", a)
	}
}

// seal puts the right checksum into msg, so that a fuzzer gets behind it.
func seal(msg []byte) []byte {
	if len(msg) < headSize {
		return msg
	}
	sum := xxh3.Hash(msg[headSize:])
	for i := range 8 {
		msg[len(batchMagic)+i] = byte(sum >> (8 * i))
	}
	return msg
}

func FuzzDecode(f *testing.F) {
	for _, b := range []*afterimage.Batch{exampleBatch(), batchAt(0, 100, 20), {}} {
		msg, err := EncodeBatch(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		msg := seal(bytes.Clone(in))
		got, err := DecodeBatch(msg)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := EncodeBatch(got)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeBatch(again)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(plain(back), plain(got)) {
			t.Fatal("a decoded batch does not survive encoding")
		}
	})
}

func FuzzGather(f *testing.F) {
	msg, err := EncodeBatch(batchAt(0, 100, 20))
	if err != nil {
		f.Fatal(err)
	}
	n := partCount(msg, 500)
	f.Add(appendPart(nil, msg, 1, n, 500), appendPart(nil, msg, 2, n, 500))
	f.Add(msg, msg[:20])
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var g gatherer
		for i, m := range [][]byte{one, two, one, two} {
			whole, err := g.add(seal(bytes.Clone(m)), uint64(i))
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			if len(whole) > len(one)+len(two) {
				t.Fatalf("%d bytes out of %d", len(whole), len(one)+len(two))
			}
		}
	})
}
