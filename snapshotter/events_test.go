package snapshotter

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/afterimagedb/afterimage"
)

func TestEvents(t *testing.T) {
	f := newFixture(t)
	a, b := tableNo(1), tableNo(2)
	f.image(2, afterimage.CatalogTable, string(a[:]), "db.a")
	f.ddl(10, afterimage.OpInsert, b, "db.b")
	f.ddl(20, afterimage.OpPatch, a, "2")
	f.ddl(30, afterimage.OpDelete, b, "drop")
	f.ddl(30, afterimage.OpPut, a, "no event")
	key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, 25), 7)
	f.changes(afterimage.Change{
		Time: 25, Order: 7, Wall: 255, Op: afterimage.OpInsert, Table: afterimage.EventsTable, Key: key,
		Body: fmt.Appendf(nil, `{"kind":"massDelete","table":%q,"destructive":true,"count":1234}`, a),
	})
	events := func(from, to afterimage.Time) []Event {
		e, err := f.snapshotter().Events(context.Background(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	want := []Event{
		{ID: "0.10-0", Time: 10, Wall: 100, Kind: "create", Namespace: "db.b", Table: b, Before: 9},
		{ID: "0.20-0", Time: 20, Wall: 200, Kind: "rename", Namespace: "db.a", Table: a, Detail: "to db.a2", Before: 19},
		{ID: "0.25-7", Time: 25, Wall: 255, Kind: "massDelete", Namespace: "db.a2", Table: a, Detail: "1234 rows", Destructive: true, Before: 24},
		{ID: "0.30-0", Time: 30, Wall: 300, Kind: "drop", Namespace: "db.b", Table: b, Destructive: true, Before: 29},
	}
	equalJSON(t, events(0, 100), want)
	equalJSON(t, events(0, afterimage.MaxTime), want)
	equalJSON(t, events(20, 25), want[1:3])
	equalJSON(t, events(21, 24), []Event(nil))
	equalJSON(t, events(30, 30), want[3:])

	_, err := f.snapshotter().Events(context.Background(), 2, 1)
	wantError(t, err, "events from 0.2 to 0.1: the first lies after the second")
}

func TestEventsOfDamagedRows(t *testing.T) {
	for body, want := range map[string]string{
		"{":  "events: event 000000000000001900000007 can't be read: unexpected end of JSON input: run `afterimage verify`",
		"{}": "events: key 0000000000000019 is not that of an event: run `afterimage verify`",
	} {
		f := newFixture(t)
		key := binary.BigEndian.AppendUint64(nil, 25)
		if body == "{" {
			key = binary.BigEndian.AppendUint32(key, 7)
		}
		f.changes(afterimage.Change{Time: 25, Op: afterimage.OpInsert, Table: afterimage.EventsTable, Key: key, Body: []byte(body)})
		_, err := f.snapshotter().Events(context.Background(), 0, 100)
		wantError(t, err, want)
	}
}

func TestTimeOfWall(t *testing.T) {
	f := newFixture(t)
	at := func(sec, ord uint32, wall int64) afterimage.Change {
		return afterimage.Change{
			Time: afterimage.MongoTime(sec, ord), Wall: wall, Op: afterimage.OpPut, Table: tableNo(1),
			Key: fmt.Appendf(nil, "%d.%d", sec, ord), Body: []byte("b"),
		}
	}
	f.changes(at(10, 1, 10_100), at(10, 2, 10_100), at(10, 3, 10_500), at(11, 1, 11_000))
	f.changes(at(10, 4, 10_600), at(12, 1, 12_900), at(10, 5, 0))
	f.changes(at(13, 1, 13_100))
	s := f.snapshotter()
	for wall, want := range map[int64]afterimage.Time{
		10_050: afterimage.MongoTime(10, 0) - 1,
		10_100: afterimage.MongoTime(10, 2),
		10_499: afterimage.MongoTime(10, 2),
		10_500: afterimage.MongoTime(10, 3),
		10_999: afterimage.MongoTime(10, 4),
		11_500: afterimage.MongoTime(11, 1),
		12_500: afterimage.MongoTime(12, 0) - 1,
		50_000: afterimage.MongoTime(50, 0) - 1,
	} {
		got, err := s.TimeOfWall(context.Background(), wall)
		if err != nil || got != want {
			t.Errorf("at %d ms: %s, %v, want %s", wall, got, err, want)
		}
	}
	f.bucket.reads = 0
	if _, err := f.snapshotter().TimeOfWall(context.Background(), 13_500); err != nil || f.bucket.reads > 2 {
		t.Errorf("%d reads, %v: one segment overlaps that second", f.bucket.reads, err)
	}
	for _, wall := range []int64{-1, 999, 1 << 52} {
		if got, err := s.TimeOfWall(context.Background(), wall); err == nil {
			t.Errorf("%d ms is no time, got %s", wall, got)
		}
	}
}
