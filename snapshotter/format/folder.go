package format

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // mongodump's file names have it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
)

const bufferBytes = 1 << 20

// FolderOptions says how a folder is written.
type FolderOptions struct {
	Gzip    bool // every file by itself, with .gz at the end of its name
	Workers int  // tables at once; 0 is 1
	// Extension of the files of documents, with its dot.
	Extension string
	// Append appends a document in the form of the files.
	Append func(dst, doc []byte) ([]byte, error)
}

// WriteFolder writes DB/NAME+Extension and DB/NAME.metadata.json for each namespace of the source. The folder is written
// under another name beside it and renamed when it is complete and durable. dir must not exist, or be empty.
func WriteFolder(ctx context.Context, dir string, src Source, o FolderOptions) (*Summary, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = checkTarget(dir)
	}
	if err != nil {
		return nil, err
	}
	layout, err := Layout(ctx, src)
	if err != nil {
		return nil, err
	}
	temp := dir + ".partial-" + rand.Text()[:8]
	if err := os.MkdirAll(temp, 0o750); err != nil {
		return nil, err
	}
	written, err := writeAll(ctx, temp, layout, src, o)
	if err == nil {
		err = place(temp, dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	s := &Summary{}
	for _, w := range written {
		s.Add(w)
	}
	return s, nil
}

// checkTarget refuses a folder that holds something.
func checkTarget(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return afterimage.Usagef("output folder %s: %w; name a new folder", dir, err)
	case len(entries) > 0:
		return afterimage.Usagef("output folder %s is not empty; name a new folder", dir)
	}
	return nil
}

// place gives the complete folder its name.
func place(temp, dir string) error {
	err := os.Remove(dir) // only if it is empty
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("output folder %s can't be replaced: %w; name a new folder", dir, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

func writeAll(ctx context.Context, root string, layout []Namespace, src Source, o FolderOptions) ([]Written, error) {
	for i := range layout {
		if err := os.Mkdir(filepath.Join(root, layout[i].DB), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	written := make([]Written, len(layout))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, o.Workers))
	writers := sync.Pool{New: func() any { return newFileWriter(o.Gzip) }}
	for i := range layout {
		g.Go(func() error {
			w := writers.Get().(*fileWriter)
			defer writers.Put(w)
			var err error
			written[i], err = o.writeNamespace(gctx, w, root, &layout[i], src)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range layout {
		if i == 0 || layout[i].DB != layout[i-1].DB {
			if err := syncFolder(filepath.Join(root, layout[i].DB)); err != nil {
				return nil, err
			}
		}
	}
	return written, syncFolder(root)
}

func (o *FolderOptions) writeNamespace(ctx context.Context, w *fileWriter, root string, n *Namespace, src Source) (Written, error) {
	if n.Metadata != nil {
		err := w.write(filepath.Join(root, n.DB, FileName(n.Name))+".metadata.json", func(out io.Writer) error {
			_, err := out.Write(n.Metadata)
			return err
		})
		if err != nil {
			return Written{}, err
		}
	}
	if n.Table == nil {
		return Copy(ctx, src, n, nil)
	}
	file := filepath.Join(n.DB, FileName(n.DataName)) + o.Extension
	var done Written
	err := w.write(filepath.Join(root, file), func(out io.Writer) (err error) {
		done, err = Copy(ctx, src, n, func(doc []byte) error {
			if o.Append == nil {
				_, err := out.Write(doc)
				return err
			}
			if w.doc, err = o.Append(w.doc[:0], doc); err != nil {
				return err
			}
			_, err = out.Write(w.doc)
			return err
		})
		return err
	})
	done.File = filepath.ToSlash(file)
	if o.Gzip {
		done.File += ".gz"
	}
	return done, err
}

// fileWriter writes files one after the other with the same buffers.
type fileWriter struct {
	buf *bufio.Writer
	zip *gzip.Writer
	doc []byte
}

func newFileWriter(zip bool) *fileWriter {
	w := &fileWriter{buf: bufio.NewWriterSize(nil, bufferBytes)}
	if zip {
		w.zip = NewGzip(nil)
	}
	return w
}

// NewGzip returns the compressor of all outputs. Its level is the fastest: compression is what a dump spends its time on.
func NewGzip(out io.Writer) *gzip.Writer {
	w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}

// write makes a file durable. What fill gets is buffered.
func (w *fileWriter) write(path string, fill func(io.Writer) error) error {
	if w.zip != nil {
		path += ".gz"
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	w.buf.Reset(file)
	if w.zip != nil {
		w.zip.Reset(file)
		w.buf.Reset(w.zip)
	}
	err = fill(w.buf)
	if err == nil {
		err = w.buf.Flush()
	}
	if err == nil && w.zip != nil {
		err = w.zip.Close()
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// FileName is the name that mongodump gives to the files of a collection, without an extension.
func FileName(collection string) string {
	name := url.QueryEscape(collection)
	if len(name) <= 238 { // 255 less .metadata.json.gz
		return name
	}
	sum := sha1.Sum([]byte(collection)) //nolint:gosec // see the import
	return name[:208] + "%24" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// WriteFile writes one file under another name beside it and renames it when it is complete and durable. path must not
// exist.
func WriteFile(path string, fill func(io.Writer) (*Summary, error)) (*Summary, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, afterimage.Usagef("output file %s exists; name a new file", path)
	}
	temp := path + ".partial-" + rand.Text()[:8]
	var s *Summary
	err := newFileWriter(false).write(temp, func(out io.Writer) (err error) {
		s, err = fill(out)
		return err
	})
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		if rerr := os.Remove(temp); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return nil, err
	}
	return s, syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
