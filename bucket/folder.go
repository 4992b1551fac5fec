package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Files are written under tempFolder first. Names with a leading dot are no object names, so no listing shows them.
const (
	tempFolder = ".tmp"
	tempAgeMax = 24 * time.Hour // older ones were left by a crash
)

// Folder is a bucket in a folder of a local or network file system with hard links. Any number of processes may share
// it. No name may be the folder of another: "a" and "a/b" exclude each other.
type Folder struct {
	root string
	// synced holds the folders whose own entries are known to be durable: another process may have made one and not
	// have synced its parent yet.
	synced sync.Map
}

var _ Bucket = (*Folder)(nil)

// NewFolder returns the bucket in the folder path, which is made by the first write. What crashed writers left there more
// than a day ago is removed.
func NewFolder(path string) (*Folder, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("bucket folder %s: %w", path, err)
	}
	if fi, err := os.Stat(root); err == nil && !fi.IsDir() {
		return nil, fmt.Errorf("bucket folder %s: it is a file; name a folder", root)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bucket folder %s: %w", root, err)
	}
	f := &Folder{root: root}
	f.removeOldTemps(time.Now())
	return f, nil
}

// removeOldTemps is best effort: a bucket that can only be read still opens.
func (f *Folder) removeOldTemps(now time.Time) {
	dir := filepath.Join(f.root, tempFolder)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && now.Sub(fi.ModTime()) > tempAgeMax {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Put implements [Bucket].
func (f *Folder) Put(ctx context.Context, name string, data []byte) error {
	return f.wrap("put", name, f.write(ctx, name, data, os.Rename))
}

// Create implements [Bucket]. It links the finished file to its name: link(2) fails if the name is taken, in whatever
// process.
func (f *Folder) Create(ctx context.Context, name string, data []byte) error {
	err := f.write(ctx, name, data, os.Link)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = ErrExists
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		err = fmt.Errorf("%w (the file system must have hard links)", err)
	}
	return f.wrap("create", name, err)
}

// write makes the object durable: file, then name.
func (f *Folder) write(ctx context.Context, name string, data []byte, place func(from, to string) error) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	err := f.writeOnce(f.path(name), data, place)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed a folder that we knew
		f.synced.Clear()
		err = f.writeOnce(f.path(name), data, place)
	}
	return err
}

func (f *Folder) writeOnce(target string, data []byte, place func(from, to string) error) error {
	dir, temps := filepath.Dir(target), filepath.Join(f.root, tempFolder)
	if err := errors.Join(f.makeFolder(temps), f.makeFolder(dir)); err != nil {
		return err
	}
	temp := filepath.Join(temps, rand.Text())
	defer os.Remove(temp) //nolint:errcheck // gone after a rename; anything left is removed a day later
	if err := writeSynced(temp, data); err != nil {
		return err
	}
	if err := place(temp, target); err != nil {
		return err
	}
	return syncFolder(dir)
}

// makeFolder makes dir and its parents and sees to it that they survive a power loss.
func (f *Folder) makeFolder(dir string) error {
	if _, ok := f.synced.Load(dir); ok {
		return nil
	}
	parent := filepath.Dir(dir)
	err := os.Mkdir(dir, 0o750)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.makeFolder(parent); err == nil {
			err = os.Mkdir(dir, 0o750)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	inside := strings.HasPrefix(dir, f.root+string(filepath.Separator))
	if serr := syncFolder(parent); serr != nil && (err == nil || inside || !errors.Is(serr, fs.ErrPermission)) {
		return serr // one that stood before us may lie in a folder that is not ours to open
	}
	if inside {
		if err := f.makeFolder(parent); err != nil {
			return err
		}
	}
	f.synced.Store(dir, struct{}{})
	return nil
}

// Get implements [Bucket].
func (f *Folder) Get(ctx context.Context, name string) ([]byte, error) {
	file, size, err := f.open(ctx, name)
	if err != nil {
		return nil, f.wrap("read", name, err)
	}
	defer file.Close()
	data := make([]byte, size)
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, f.wrap("read", name, err)
	}
	return data, nil
}

// GetRange implements [Bucket].
func (f *Folder) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	file, size, err := f.open(ctx, name)
	if err != nil {
		return nil, f.wrap("read", name, err)
	}
	defer file.Close()
	if err := CheckRange(offset, length, size); err != nil {
		return nil, f.wrap("read", name, err)
	}
	data := make([]byte, length)
	if _, err := file.ReadAt(data, offset); err != nil {
		return nil, f.wrap("read", name, err)
	}
	return data, nil
}

// Size implements [Bucket].
func (f *Folder) Size(ctx context.Context, name string) (int64, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return 0, err
	}
	fi, err := os.Stat(f.path(name))
	if err == nil && !fi.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		return 0, f.wrap("size of", name, err)
	}
	return fi.Size(), nil
}

// Delete implements [Bucket].
func (f *Folder) Delete(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	path := f.path(name)
	err := syscall.Unlink(path) // os.Remove would remove an empty folder too
	for errors.Is(err, syscall.EINTR) {
		err = syscall.Unlink(path)
	}
	switch {
	case err == nil:
		err = syncFolder(filepath.Dir(path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return nil
	}
	return f.wrap("delete", name, err)
}

// String implements [Bucket].
func (f *Folder) String() string { return "file://" + f.root }

func (f *Folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

func (f *Folder) open(ctx context.Context, name string) (*os.File, int64, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, 0, err
	}
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, 0, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, fi.Size(), nil
}

// wrap names the object and the store, and turns the system's errors into ours.
func (f *Folder) wrap(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		err = ErrNotFound
	}
	return fmt.Errorf("%s %s in %s: %w", verb, name, f, err)
}

// writeSynced writes a new file and syncs it.
func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// syncFolder makes the entries of a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // some network file systems can't: there the name is durable when link or rename returns
	}
	return errors.Join(err, d.Close())
}

// folderPrefix returns the deepest folder that holds every name under prefix, "" for the root, else with a slash at the
// end.
func folderPrefix(prefix string) string { return prefix[:strings.LastIndexByte(prefix, '/')+1] }
