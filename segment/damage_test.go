package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// small is a segment of a few KB; zeros make its bodies large, and so several row groups, at little cost.
func small(t testing.TB, rows, zeros int) ([]byte, Meta, []afterimage.Change) {
	t.Helper()
	changes := make([]afterimage.Change, rows)
	for i := range changes {
		changes[i] = afterimage.Change{
			Table: afterimage.TableID{byte(i / 8)}, Key: fmt.Appendf(nil, "key%04d", i/2), Time: afterimage.MongoTime(9, uint32(i)), Order: uint32(i % 3),
			Wall: int64(i), Lane: afterimage.LaneID(i % 2), Op: afterimage.OpPut, Body: append(fmt.Appendf(nil, "body %d", i*i), make([]byte, zeros)...),
		}
	}
	data, m := write(t, WriterOptions{ID: "small"}, changes)
	return data, m, changes
}

// readAll reads everything, and each row by itself; it returns the first error.
func readAll(t testing.TB, data []byte, m Meta, points []afterimage.Change) ([]afterimage.Change, error) {
	t.Helper()
	get := func(o ReadOptions) (out []afterimage.Change, err error) {
		it, err := Open(t.Context(), object(data), m, o)
		if err != nil {
			return nil, err
		}
		defer it.Close()
		for it.Next() {
			out = append(out, copyChange(it.Change()))
		}
		return out, it.Err()
	}
	for i := range points {
		c := &points[i]
		o := ReadOptions{Range: afterimage.KeyRange(c.Table, c.Key), After: c.Time - 1, Until: c.Time}
		got, err := get(o)
		if err != nil {
			return nil, err
		}
		if err := same(got, points[i:i+1]); err != nil {
			t.Fatalf("point read: %v", err)
		}
	}
	return get(ReadOptions{})
}

// TestFlippedBytes damages every byte of a segment in turn: Verify must notice, and a read gives an error or what was
// written.
func TestFlippedBytes(t *testing.T) {
	for _, tc := range []struct{ rows, zeros, stride int }{{16, 0, 1}, {6, 400 << 10, 211}} {
		data, m, rows := small(t, tc.rows, tc.zeros)
		failed := 0
		for at := 0; at < len(data); at += tc.stride {
			data[at] ^= 1 << (at % 8)
			if err := Verify(data, m); err == nil || !strings.Contains(err.Error(), "segment small") {
				t.Fatalf("byte %d flipped: Verify says %v", at, err)
			}
			got, err := readAll(t, data, m, rows[:2])
			if err != nil {
				failed++
				if !strings.Contains(err.Error(), "segment small") || !strings.Contains(err.Error(), "afterimage verify") {
					t.Fatalf("byte %d flipped: error says too little: %v", at, err)
				}
			} else if err := same(got, rows); err != nil {
				t.Fatalf("byte %d flipped: wrong rows: %v", at, err)
			}
			if own, err := ReadMeta(data); err == nil {
				_ = Verify(data, own)
			}
			data[at] ^= 1 << (at % 8)
		}
		if failed < int(m.Index.Offset+m.Index.Length)/tc.stride-2 {
			t.Fatalf("only %d flips of %d bytes with rows and index were noticed", failed, m.Index.Offset+m.Index.Length)
		}
		if err := Verify(data, m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTruncated(t *testing.T) {
	data, m, rows := small(t, 16, 0)
	for n := range data {
		if _, err := ReadMeta(data[:n]); err == nil {
			t.Fatalf("ReadMeta of %d bytes", n)
		}
		if Verify(data[:n], m) == nil {
			t.Fatalf("Verify of %d bytes", n)
		}
		if got, err := readAll(t, data[:n], m, nil); err == nil && same(got, rows) != nil {
			t.Fatalf("%d bytes: wrong rows", n)
		}
	}
}

func TestRefusesOtherVersions(t *testing.T) {
	data, m, _ := small(t, 4, 0)
	edit := func(old, text string) []byte {
		if !bytes.Contains(data, []byte(old)) || len(old) != len(text) {
			t.Fatalf("%q", old)
		}
		return bytes.Replace(data, []byte(old), []byte(text), 1)
	}
	for _, tc := range []struct{ old, text, want string }{
		{`"version":1`, `"version":2`, "newer afterimage"},
		{`"keyID":"none"`, `"keyID":"key7"`, "encrypted with key"},
		{envelopeKey, "afterimage-segmenT", "not a segment"},
	} {
		if _, err := ReadMeta(edit(tc.old, tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.text, err)
		}
	}
	binary.LittleEndian.PutUint32(data[m.Index.Offset+4:], 2)
	if _, err := Open(t.Context(), object(data), m, ReadOptions{}); err == nil || !strings.Contains(err.Error(), "newer afterimage") {
		t.Error(err)
	}
	m.KeyID = "key7"
	if _, err := Open(t.Context(), object(data), m, ReadOptions{}); err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Error(err)
	}
}

// TestVerifySeesWrongDescription gives Verify a whole object and a description that is off in one place.
func TestVerifySeesWrongDescription(t *testing.T) {
	data, m, _ := small(t, 16, 0)
	for name, edit := range map[string]func(*Meta){
		"rows": func(m *Meta) { m.Rows++ }, "times": func(m *Meta) { m.MaxTime++ }, "level": func(m *Meta) { m.Level++ },
		"first": func(m *Meta) { m.First.Key = nil }, "last": func(m *Meta) { m.Last.Key = []byte("z") },
		"lanes": func(m *Meta) { m.Lanes = nil }, "raw": func(m *Meta) { m.RawBytes-- }, "id": func(m *Meta) { m.ID = "other" },
		"index": func(m *Meta) { m.Index.Offset-- }, "bytes": func(m *Meta) { m.Bytes++ }, "sum": func(m *Meta) { m.Sum++ },
	} {
		wrong := m
		edit(&wrong)
		if Verify(data, wrong) == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func FuzzObject(f *testing.F) {
	data, _, _ := small(f, 16, 0)
	f.Add(data)
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadMeta(data)
		if err != nil {
			return
		}
		_ = Verify(data, m)
		if it, err := Open(t.Context(), object(data), m, ReadOptions{}); err == nil {
			for it.Next() {
				_ = copyChange(it.Change())
			}
			_ = it.Close()
		}
	})
}

func FuzzIndex(f *testing.F) {
	data, m, _ := small(f, 16, 0)
	dec, err := getDecoder()
	if err != nil {
		f.Fatal(err)
	}
	section := data[m.Index.Offset : m.Index.Offset+m.Index.Length]
	raw, err := inflate(dec, nil, section[indexHeader:], int(binary.LittleEndian.Uint64(section[8:])))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		groups, err := parseIndex(raw, &m)
		if err != nil || len(groups) == 0 {
			return
		}
		for i := range groups {
			if g := &groups[i]; g.offset < 0 || g.length < 0 || g.offset+g.length > m.Index.Offset {
				t.Fatal("a row group lies outside", g)
			}
		}
		if section, err := encodeIndex(groups); err != nil {
			t.Fatal(err)
		} else if again, err := decodeIndex(section, &m, dec); err != nil || len(again) != len(groups) {
			t.Fatal(err)
		}
		span(groups, afterimage.KeyRange(m.First.Table, m.First.Key))
	})
}

// FuzzRows decodes pages of any content behind a right checksum.
func FuzzRows(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00a\x00\x00\x00\x00"), []byte("\x00\x00\x00\x00\x02\x00\x00\x00bb"), uint8(2))
	f.Add([]byte("\xff\xff\xff\xff"), []byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, keys, bodies []byte, n uint8) {
		enc, err := getEncoder(effortLow)
		if err != nil {
			t.Fatal(err)
		}
		defer putEncoder(effortLow, enc)
		var stored []byte
		g := group{rows: int64(n)}
		for i, w := range widths {
			g.chunks[i].constant = make([]byte, w)
		}
		for col, page := range map[int][]byte{colKey: keys, colBody: bodies} {
			at := len(stored)
			stored = enc.EncodeAll(page, stored)
			g.chunks[col] = chunk{offset: int64(at), stored: int64(len(stored) - at), raw: int64(len(page))}
		}
		g.length, g.sum = int64(len(stored)), xxh3.Hash(stored)
		var r rows
		if r.dec, err = getDecoder(); err != nil {
			t.Fatal(err)
		}
		defer putDecoder(r.dec)
		if err := r.load(&g, stored); err != nil {
			t.Fatal(err)
		}
		var c afterimage.Change
		size := 0
		for r.i < r.n {
			if r.next(&c) != nil {
				return
			}
			size += 8 + len(c.Key) + len(c.Body)
		}
		if r.end() == nil && size != len(keys)+len(bodies) {
			t.Fatalf("rows hold %d bytes of %d", size, len(keys)+len(bodies))
		}
	})
}

// TestReaderChecksOrder writes what Append would refuse, with every sum right, within a row group and over its border.
func TestReaderChecksOrder(t *testing.T) {
	for _, border := range []bool{false, true} {
		w, err := NewWriter(WriterOptions{ID: "small", Kind: Changes})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			c := afterimage.Change{Key: []byte("k"), Time: afterimage.Time(9 - i/2), Op: afterimage.OpPut}
			if i%2 == 1 {
				c.Order = 1
			}
			w.place(&c, true)
			w.pages.add(&c)
			if border && i == 1 {
				if err := w.flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		data, m, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(t, data, m, nil); !errors.Is(err, ErrOrder) {
			t.Errorf("border %v: read says %v", border, err)
		}
		if err := Verify(data, m); !errors.Is(err, ErrOrder) {
			t.Errorf("border %v: Verify says %v", border, err)
		}
	}
}
