// Package jsonl writes snapshots as JSON lines: DB/NAME.jsonl with one document a line in canonical extended JSON, and
// DB/NAME.metadata.json as mongodump writes it. mongoimport and every JSON tool read them; types and the order of fields
// survive.
package jsonl

import (
	"context"

	"github.com/afterimagedb/afterimage/snapshotter/format"
)

// Options says how to write.
type Options struct {
	Gzip    bool // every file by itself, with .gz at the end of its name
	Workers int  // tables at once; 0 is 1
}

// WriteDirectory writes the source to a folder that does not exist or is empty. It appears when it is complete.
func WriteDirectory(ctx context.Context, dir string, src format.Source, o Options) (*format.Summary, error) {
	return format.WriteFolder(ctx, dir, src, format.FolderOptions{
		Gzip: o.Gzip, Workers: o.Workers, Extension: ".jsonl",
		Append: func(dst, doc []byte) ([]byte, error) {
			dst, err := format.AppendJSON(dst, doc)
			return append(dst, '\n'), err
		},
	})
}
