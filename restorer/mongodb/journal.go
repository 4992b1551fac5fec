package mongodb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/restorer"
)

// journal lets an interrupted restore go on. It is a file of JSON lines, one for each thing that happened; later lines
// win, and a torn last line is ignored. It is removed when the restore has succeeded.
type journal struct {
	path    string
	resumed bool

	mu     sync.Mutex
	file   *os.File
	tables map[string]*journalTable
	views  map[string]bool
}

// journalTable is what is known of one table.
type journalTable struct {
	creating bool
	replaces string // uuid of what was to be dropped
	uuid     string // of the collection that was created; "" before that
	key      []byte // every row up to this key was written
	done     *restorer.NamespaceReport
}

func (j *journalTable) forget() { *j = journalTable{} }

// The events of a journal line.
const (
	eventStart    = "start"
	eventCreating = "creating"
	eventCreated  = "created"
	eventWritten  = "written"
	eventDone     = "done"
	eventView     = "view"
)

type journalLine struct {
	Event  string                    `json:"event"`
	At     string                    `json:"at,omitempty"`
	Target string                    `json:"target,omitempty"`
	Table  string                    `json:"table,omitempty"` // TableID>target namespace
	UUID   string                    `json:"uuid,omitempty"`
	Key    []byte                    `json:"key,omitempty"`
	Report *restorer.NamespaceReport `json:"report,omitempty"`
}

// openJournal reads the journal of an earlier run with the same target, time, renaming and masks.
func openJournal(o Options, target string) (*journal, error) {
	j := &journal{tables: map[string]*journalTable{}, views: map[string]bool{}}
	if o.StateDir == "" {
		return j, nil
	}
	what, err := json.Marshal([]any{target, o.At, o.Rename, o.Masks, o.TTL})
	if err != nil {
		return nil, fmt.Errorf("name of the journal: %w", err)
	}
	j.path = filepath.Join(o.StateDir, fmt.Sprintf("restore-%s-%016x.jsonl", o.At, xxh3.Hash(what)))
	b, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of the interrupted restore: %w", err)
	}
	if err := j.read(b); err != nil {
		return nil, fmt.Errorf("journal %s: %w", j.path, err)
	}
	j.resumed = len(j.tables) > 0
	return j, nil
}

func (j *journal) read(b []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var l journalLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // torn by the crash; what it said is found out again
		}
		t := j.get(l.Table)
		switch l.Event {
		case eventCreating:
			*t = journalTable{creating: true, replaces: l.UUID}
		case eventCreated:
			t.uuid = l.UUID
		case eventWritten:
			t.key = l.Key
		case eventDone:
			t.done = l.Report
		case eventView:
			j.views[l.Table] = true
		}
	}
	return lines.Err()
}

func (j *journal) get(name string) *journalTable {
	t := j.tables[name]
	if t == nil {
		t = &journalTable{}
		if name != "" {
			j.tables[name] = t
		}
	}
	return t
}

func journalName(p *plannedTable) string { return p.table.ID.String() + ">" + p.shown }

func (j *journal) table(p *plannedTable) *journalTable {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.get(journalName(p))
}

func (j *journal) viewDone(ns string) bool { return j.views[ns] }

// begin opens the file for writing.
func (j *journal) begin(at afterimage.Time, target string) (err error) {
	if j.path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(j.path), 0o750); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if j.file, err = os.OpenFile(j.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	// After a crash the last line may have no end.
	if _, err = j.file.WriteString("\n"); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return j.write(journalLine{Event: eventStart, At: at.String(), Target: target}, false)
}

// write appends a line; those that later steps rely on are synced.
func (j *journal) write(l journalLine, sync bool) error {
	if j.file == nil {
		return nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if sync {
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

func (j *journal) creating(p *plannedTable, replaces string) error {
	return j.write(journalLine{Event: eventCreating, Table: journalName(p), UUID: replaces}, true)
}

func (j *journal) created(p *plannedTable, uuid string) error {
	return j.write(journalLine{Event: eventCreated, Table: journalName(p), UUID: uuid}, true)
}

func (j *journal) written(p *plannedTable, key []byte) error {
	return j.write(journalLine{Event: eventWritten, Table: journalName(p), Key: key}, false)
}

func (j *journal) done(p *plannedTable, rep *restorer.NamespaceReport) error {
	return j.write(journalLine{Event: eventDone, Table: journalName(p), Report: rep}, false)
}

func (j *journal) view(ns string) error {
	return j.write(journalLine{Event: eventView, Table: ns}, false)
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close() // nothing hangs on lines that were not synced
	}
}

// finish removes the journal of a restore that succeeded.
func (j *journal) finish() error {
	if j.path == "" {
		return nil
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal: %w", err)
	}
	return nil
}
