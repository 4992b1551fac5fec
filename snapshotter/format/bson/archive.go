package bsondump

import (
	"bufio"
	"context"
	"hash/crc64"
	"io"

	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"

	"github.com/afterimagedb/afterimage/snapshotter/format"
)

var (
	magic      = []byte{0x6d, 0xe2, 0x99, 0x81}
	terminator = []byte{0xff, 0xff, 0xff, 0xff}
	ecma       = crc64.MakeTable(crc64.ECMA)
)

const (
	archiveVersion = "0.1"
	toolVersion    = "100.10.0" // the mongodump whose form this is
)

func writeArchive(ctx context.Context, w io.Writer, layout []format.Namespace, src format.Source, o Options) (*format.Summary, error) {
	out := bufio.NewWriterSize(w, 1<<20)
	if _, err := out.Write(prelude(layout, o)); err != nil {
		return nil, err
	}
	s := &format.Summary{}
	for i := range layout {
		done, err := writeNamespace(ctx, out, &layout[i], src)
		if err != nil {
			return nil, err
		}
		s.Add(done)
	}
	return s, out.Flush()
}

// prelude says what follows: a header and each namespace with its metadata.
func prelude(layout []format.Namespace, o Options) []byte {
	version := o.ServerVersion
	if version == "" {
		version = "6.0.0"
	}
	out := append([]byte{}, magic...)
	out = append(out, bsoncore.NewDocumentBuilder().
		AppendInt32("concurrent_collections", 1).
		AppendString("version", archiveVersion).
		AppendString("server_version", version).
		AppendString("tool_version", toolVersion).Build()...)
	for i := range layout {
		n := &layout[i]
		out = append(out, bsoncore.NewDocumentBuilder().
			AppendString("db", n.DB).
			AppendString("collection", n.Name).
			AppendString("metadata", string(n.Metadata)).
			AppendInt32("size", 0). // mongodump writes no other
			AppendString("type", n.Type).Build()...)
	}
	return append(out, terminator...)
}

// writeNamespace writes one block with all documents, however many, and the block that ends the namespace. A view has
// both too: mongorestore misses what it was not shown.
func writeNamespace(ctx context.Context, out *bufio.Writer, n *format.Namespace, src format.Source) (format.Written, error) {
	if _, err := out.Write(blockHeader(n, false, 0)); err != nil {
		return format.Written{}, err
	}
	crc := uint64(0)
	done, err := format.Copy(ctx, src, n, func(doc []byte) error {
		crc = crc64.Update(crc, ecma, doc)
		_, err := out.Write(doc)
		return err
	})
	if err != nil {
		return done, err
	}
	end := append([]byte{}, terminator...)
	end = append(end, blockHeader(n, true, crc)...)
	_, err = out.Write(append(end, terminator...))
	return done, err
}

func blockHeader(n *format.Namespace, eof bool, crc uint64) []byte {
	return bsoncore.NewDocumentBuilder().
		AppendString("db", n.DB).
		AppendString("collection", n.DataName).
		AppendBoolean("EOF", eof).
		AppendInt64("CRC", int64(crc)).Build()
}
