// Package bsondump writes snapshots as mongodump does: a folder of BSON files, or an archive, both for mongorestore.
//
// An archive is a stream of BSON documents in blocks, each ended by four bytes ff. The first block, after the magic
// number, is the prelude: a header and the metadata of every namespace. Each block after it is a namespace header and
// documents of that namespace. A namespace ends with a block of its own whose header says EOF and has the CRC-64 (ECMA)
// of all its documents.
package bsondump

import (
	"context"
	"io"
	"os"

	"github.com/afterimagedb/afterimage/snapshotter/format"
)

// Options says how to write.
type Options struct {
	Gzip    bool // folder: every file by itself, with .gz at the end of its name; archive: the whole stream
	Workers int  // folder: tables at once; 0 is 1
	// ServerVersion of the source, such as 6.0.5. An archive names it, because from 8.3 on mongorestore takes a
	// time-series' documents under another name; "" is 6.0.0, whose names these are.
	ServerVersion string
}

// WriteDirectory writes the source to a folder that does not exist or is empty. It appears when it is complete.
func WriteDirectory(ctx context.Context, dir string, src format.Source, o Options) (*format.Summary, error) {
	return format.WriteFolder(ctx, dir, src, format.FolderOptions{Gzip: o.Gzip, Workers: o.Workers, Extension: ".bson"})
}

// WriteArchive writes the source to a new archive file, which appears when it is complete; "-" is standard output.
func WriteArchive(ctx context.Context, path string, src format.Source, o Options) (*format.Summary, error) {
	fill := func(out io.Writer) (*format.Summary, error) { return StreamArchive(ctx, out, src, o) }
	if path == "-" {
		return fill(os.Stdout)
	}
	return format.WriteFile(path, fill)
}

// StreamArchive writes the source as an archive to out.
func StreamArchive(ctx context.Context, out io.Writer, src format.Source, o Options) (*format.Summary, error) {
	layout, err := format.Layout(ctx, src)
	if err != nil {
		return nil, err
	}
	if !o.Gzip {
		return writeArchive(ctx, out, layout, src, o)
	}
	zip := format.NewGzip(out)
	s, err := writeArchive(ctx, zip, layout, src, o)
	if err != nil {
		return nil, err
	}
	return s, zip.Close()
}
