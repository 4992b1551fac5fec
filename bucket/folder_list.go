package bucket

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// List implements [Bucket]. It walks one folder at a time, in the order of whole names.
func (f *Folder) List(ctx context.Context, prefix, after string, fn func(Info) error) error {
	start := folderPrefix(prefix)
	if start == "" || CheckName(strings.TrimSuffix(start, "/")) == nil { // else no object can have such a name
		return endOfList(f.walk(ctx, start, prefix, after, fn))
	}
	return nil
}

// walk lists the folder with the name dir, which is empty or ends with a slash.
func (f *Folder) walk(ctx context.Context, dir, prefix, after string, fn func(Info) error) error {
	entries, err := os.ReadDir(f.path(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return f.wrap("list", dir, err)
	}
	for _, e := range sortEntries(entries) {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := dir + e.name
		if strings.HasSuffix(name, "/") {
			if (strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name)) && (name > after || strings.HasPrefix(after, name)) {
				err = f.walk(ctx, name, prefix, after, fn)
			}
		} else if strings.HasPrefix(name, prefix) && name > after {
			var fi fs.FileInfo
			if fi, err = e.Info(); errors.Is(err, fs.ErrNotExist) {
				err = nil // deleted meanwhile
			} else if err == nil {
				err = fn(Info{Name: name, Size: fi.Size()})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry is a file, or a folder whose name ends with a slash.
type entry struct {
	os.DirEntry
	name string
}

// sortEntries sorts by whole names: a folder counts with its slash, so that "a-b" comes before "a/x". Our own temporary
// files, and whatever else is not ours, are left out.
func sortEntries(in []os.DirEntry) []entry {
	out := make([]entry, 0, len(in))
	for _, e := range in {
		switch {
		case CheckName(e.Name()) != nil:
		case e.IsDir():
			out = append(out, entry{e, e.Name() + "/"})
		case e.Type().IsRegular():
			out = append(out, entry{e, e.Name()})
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return out
}
