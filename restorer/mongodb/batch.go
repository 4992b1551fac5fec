package mongodb

import (
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/bson"
)

// Limits of one insert command: larger ones cost the target more CPU for the same documents. A document may exceed
// batchBytesMax; it is sent alone then, and the server takes 16 KiB more than the 16 MiB of a document.
const (
	batchBytesMax = 1 << 20
	batchDocsMax  = 2000
)

// batch is one insert command in the making. Its buffers are used again.
type batch struct {
	seq      int64
	cmd      command // up to the documents so far
	array    int     // where the array of documents starts in cmd
	spans    []span  // documents in cmd
	fixes    []fix   // documents with a Timestamp(0,0), which cmd holds as Timestamp(0,1)
	lastKey  []byte
	docBytes int64
	number   [20]byte
}

type span struct{ from, to int }

// fix names the fields of a document that hold placeholders, see setPlaceholders.
type fix struct {
	doc   int
	names []span // within the document
}

func (b *batch) begin(prefix []byte, seq int64) {
	b.seq, b.docBytes = seq, 0
	b.cmd = append(b.cmd[:0], prefix...)
	b.cmd = append(b.cmd, typeArray)
	b.cmd = append(b.cmd, "documents\x00"...)
	b.array = len(b.cmd)
	b.cmd = append(b.cmd, 0, 0, 0, 0)
	b.spans, b.fixes = b.spans[:0], b.fixes[:0]
}

func (b *batch) full(next int) bool {
	return len(b.spans) > 0 && (len(b.cmd)+next > batchBytesMax || len(b.spans) >= batchDocsMax)
}

func (b *batch) add(doc []byte) {
	b.cmd = append(b.cmd, typeDocument)
	b.cmd = append(b.cmd, strconv.AppendInt(b.number[:0], int64(len(b.spans)), 10)...)
	b.cmd = append(b.cmd, 0)
	from := len(b.cmd)
	b.cmd = append(b.cmd, doc...)
	if names := setPlaceholders(b.cmd[from:]); names != nil {
		b.fixes = append(b.fixes, fix{len(b.spans), names})
	}
	b.spans = append(b.spans, span{from, len(b.cmd)})
	b.docBytes += int64(len(doc))
}

// doc returns document i as the command holds it.
func (b *batch) doc(i int) []byte { return b.cmd[b.spans[i].from:b.spans[i].to] }

// command ends the array and the document.
func (b *batch) command() bson.Raw {
	b.cmd = append(b.cmd, 0)
	n := len(b.cmd) - b.array
	b.cmd[b.array], b.cmd[b.array+1], b.cmd[b.array+2], b.cmd[b.array+3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	return b.cmd.end()
}

// insertPrefix is what every insert command of a table begins with. Ordered inserts, of capped collections, wait for the
// majority: what a fail-over rolled back in the middle could not be put in its place later.
func insertPrefix(coll string, ordered bool) []byte {
	concern := "w1"
	if ordered {
		concern = "majority"
	}
	return newCommand("insert", coll).flag("ordered", ordered).flag("bypassDocumentValidation", true).written(concern)
}

// original returns a copy of document i as the source holds it.
func (b *batch) original(i int) []byte {
	doc := slices.Clone(b.doc(i))
	for _, f := range b.fixes {
		if f.doc == i {
			clearPlaceholders(doc, f.names)
		}
	}
	return doc
}
