package restorer

import (
	"fmt"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage"
)

// Report says what a restore did, or with Options.DryRun would do.
type Report struct {
	At         afterimage.Time   `json:"at"`
	Target     string            `json:"target"` // replica set name or host, never a URI with a password
	DryRun     bool              `json:"dryRun,omitempty"`
	Resumed    bool              `json:"resumed,omitempty"` // an earlier, interrupted run was carried on
	Namespaces []NamespaceReport `json:"namespaces"`
	Documents  int64             `json:"documents"` // sum over namespaces
	Bytes      int64             `json:"bytes"`     // sum of document bytes
	Held       []HeldTTL         `json:"heldTTL,omitempty"`
	Changes    []DocumentChange  `json:"changes,omitempty"` // of a restore of chosen documents
	Warnings   []string          `json:"warnings,omitempty"`
	Elapsed    time.Duration     `json:"elapsedNanos"`
}

// Rate returns documents and bytes per second over the whole restore.
func (r *Report) Rate() (documents, bytes float64) {
	s := r.Elapsed.Seconds()
	if s <= 0 {
		return 0, 0
	}
	return float64(r.Documents) / s, float64(r.Bytes) / s
}

// NamespaceReport says what happened to one table.
type NamespaceReport struct {
	Source    string             `json:"source"` // name at T
	Target    string             `json:"target"`
	ID        afterimage.TableID `json:"id"`   // of the table at T; the restored one has an identifier of its own
	Kind      string             `json:"kind"` // collection, capped, timeseries, view, auth
	Replaces  bool               `json:"replaces,omitempty"`
	Documents int64              `json:"documents"`
	Bytes     int64              `json:"bytes"`
	Indexes   int                `json:"indexes"` // without the one on _id
	Verified  bool               `json:"verified"`
	Exact     int64              `json:"exactFixes,omitempty"` // documents that a plain insert would have changed or refused
	Mismatch  []Mismatch         `json:"mismatches,omitempty"`
	Failed    []string           `json:"failed,omitempty"` // what could not be restored: documents, indexes
	Elapsed   time.Duration      `json:"elapsedNanos"`
}

// HeldTTL is a time to live that was restored as "never", so that the data of T is not deleted at once.
type HeldTTL struct {
	Namespace string `json:"namespace"`       // in the target
	Index     string `json:"index,omitempty"` // empty for a clustered collection or a time-series
	Original  string `json:"original"`        // expireAfterSeconds at T as extended JSON
	Command   string `json:"command"`         // what to run in a shell to let it expire again
}

// DocumentChange is what a restore of chosen documents did to one of them.
type DocumentChange struct {
	Namespace string `json:"namespace"` // in the target
	ID        string `json:"id"`        // extended JSON
	Action    string `json:"action"`    // insert, replace, delete, none
	Before    string `json:"before"`    // extended JSON of the document in the target before, "" when there was none
	After     string `json:"after"`     // extended JSON of the document as at T, "" when there was none
}

// Mismatch is a document that read back differently from what the source holds.
type Mismatch struct {
	ID      string `json:"id"`      // extended JSON
	Problem string `json:"problem"` // missing, different, not in the source
}

// Progress is a restore's state while it runs.
type Progress struct {
	Namespace   string // target namespace that moved last
	Phase       string // create, documents, indexes, verify, done
	Documents   int64  // written so far, all namespaces
	Bytes       int64
	Tables      int // finished
	TablesTotal int
}

// ExistsError says that target namespaces are in the way. Nothing was written.
type ExistsError struct {
	Namespaces []string
	Documents  []string // of a restore of chosen documents: those that differ in the target
}

// Error names everything that is in the way and what to do.
func (e *ExistsError) Error() string {
	if len(e.Documents) > 0 {
		return fmt.Sprintf("%d documents are in the target with other contents: %s; nothing was written; "+
			"use --overwrite to put them back as they were", len(e.Documents), strings.Join(e.Documents, ", "))
	}
	return fmt.Sprintf("%d namespaces exist in the target: %s; nothing was written; "+
		"use --rename to restore beside them, or --overwrite to replace them", len(e.Namespaces), strings.Join(e.Namespaces, ", "))
}

// VerifyError says that the target does not hold what was restored, or that something could not be restored at all.
type VerifyError struct{ Problems []string }

// Error lists the first problems; the report has them all.
func (e *VerifyError) Error() string {
	list, more := e.Problems, ""
	if len(list) > 10 {
		list, more = list[:10], fmt.Sprintf(" and %d more", len(e.Problems)-10)
	}
	return fmt.Sprintf("the restore is not exact: %s%s", strings.Join(list, "; "), more)
}
