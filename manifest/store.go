package manifest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
)

// FormatVersion is the version of the repository and manifest formats that this package writes.
const FormatVersion = 1

// checkpointEvery is how many commits lie between two whole states: a load reads at most that many small objects.
const checkpointEvery = 64

// Errors of a store.
var (
	// ErrConflict says that another writer committed first: reload and decide anew.
	ErrConflict = errors.New("another writer committed first")
	// ErrNoRepository says that nothing was ever committed under this source's name.
	ErrNoRepository = errors.New("no repository")
)

// Repository is the content of repository.json, written once.
type Repository struct {
	Format  int       `json:"format"`
	Kind    string    `json:"kind"`    // "mongodb"
	Source  string    `json:"source"`  // the operator's name for it
	Created time.Time `json:"created"` //
}

// document is the content of a manifest object. Either only the edit is set, or the state after it too.
type document struct {
	Number     uint64 `json:"number"`
	Commit     string `json:"commit"`     // random: whose object this is, when the answer to its creation was lost
	Wall       int64  `json:"wall"`       // milliseconds since the Unix epoch
	Checkpoint uint64 `json:"checkpoint"` // newest manifest at or before this one that holds a state; 0: the empty state
	Edit       Edit   `json:"edit"`
	State      *State `json:"state,omitempty"`
}

// Store reads and commits the manifests of one source. It is safe for concurrent use.
type Store struct {
	bucket bucket.Bucket
	now    func() time.Time

	mu         sync.Mutex
	known      *State // newest state seen
	checkpoint uint64 // its checkpoint
	awake      time.Time
}

// napMax is how long a writer may go without asking for the floor. Manifests are only deleted when they are much older.
const napMax = time.Minute

// Open opens the repository of a source; b is scoped to it. A repository that does not exist is made when kind is given,
// else ErrNoRepository. A format newer than ours is refused.
func Open(ctx context.Context, b bucket.Bucket, source, kind string) (*Store, error) {
	raw, err := b.Get(ctx, "repository.json")
	if errors.Is(err, bucket.ErrNotFound) {
		if kind == "" {
			return nil, fmt.Errorf("source %s in %s: %w: nothing was protected under this name", source, b, ErrNoRepository)
		}
		raw, err = json.MarshalIndent(Repository{Format: FormatVersion, Kind: kind, Source: source, Created: time.Now().UTC()}, "", "  ")
		if err != nil {
			return nil, err
		}
		if err = b.Create(ctx, "repository.json", raw); errors.Is(err, bucket.ErrExists) {
			raw, err = b.Get(ctx, "repository.json")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("repository of source %s: %w", source, err)
	}
	var r Repository
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("repository.json of source %s in %s is not readable: %w", source, b, err)
	}
	if r.Format > FormatVersion {
		return nil, fmt.Errorf("source %s in %s has format version %d, this program reads up to %d: use a newer afterimage", source, b, r.Format, FormatVersion)
	}
	if kind != "" && r.Kind != kind {
		return nil, afterimage.Usagef("source %s in %s protects a %s database, the configuration says %s: choose another name for the new source", source, b, r.Kind, kind)
	}
	return &Store{bucket: b, now: time.Now, known: NewState()}, nil
}

// Load returns the newest state.
func (st *Store) Load(ctx context.Context) (*State, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.load(ctx)
}

func (st *Store) load(ctx context.Context) (*State, error) {
	floor, err := st.floor(ctx)
	if err != nil {
		return nil, err
	}
	newest, err := st.newest(ctx, max(floor, st.known.Number))
	if err != nil || newest == st.known.Number {
		return st.known, err
	}
	docs := []*document{}
	for n := newest; n > st.known.Number; n-- {
		d, err := st.read(ctx, n)
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
		if d.State != nil {
			break
		}
	}
	state, checkpoint := st.known, st.checkpoint
	for _, d := range slices.Backward(docs) {

		if d.State != nil {
			state, checkpoint = d.State, d.Number
			continue
		}
		if state, err = state.Apply(d.Edit, d.Wall); err != nil {
			return nil, fmt.Errorf("manifest %d in %s does not follow the one before it: %w: run `afterimage verify`", d.Number, st.bucket, err)
		}
	}
	st.known, st.checkpoint = state, checkpoint
	return state, nil
}

// newest finds the last manifest number: numbers from the floor on have no holes, so it doubles its step, then halves.
func (st *Store) newest(ctx context.Context, from uint64) (uint64, error) {
	low, step := from, uint64(1)
	for {
		ok, err := st.exists(ctx, low+step)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		low += step
		step *= 2
	}
	for step > 1 {
		step /= 2
		ok, err := st.exists(ctx, low+step)
		if err != nil {
			return 0, err
		}
		if ok {
			low += step
		}
	}
	return low, nil
}

func (st *Store) exists(ctx context.Context, n uint64) (bool, error) {
	_, err := st.bucket.Size(ctx, objectName(n))
	if errors.Is(err, bucket.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// floor is the greatest number below which manifests may have been deleted: a writer that holds an older state must not
// create such a number anew.
func (st *Store) floor(ctx context.Context) (uint64, error) {
	var floor uint64
	err := st.bucket.List(ctx, "floors/", "", func(i bucket.Info) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(i.Name, "floors/"), 10, 64)
		if err != nil {
			return fmt.Errorf("%s in %s is not a floor marker", i.Name, st.bucket)
		}
		floor = max(floor, n)
		return nil
	})
	return floor, err
}

// Commit creates the manifest that follows base with the edit, and returns the new state. ErrConflict means that there is
// one already and it is not ours. Any other error leaves it open whether the commit happened: Load tells.
func (st *Store) Commit(ctx context.Context, base *State, e Edit) (*State, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if base.Number != st.known.Number {
		return nil, ErrConflict
	}
	wall := st.now().UnixMilli()
	next, err := base.Apply(e, wall)
	if err != nil {
		return nil, err
	}
	d := &document{Number: next.Number, Commit: rand.Text(), Wall: wall, Checkpoint: st.checkpoint, Edit: e}
	if next.Number%checkpointEvery == 0 {
		d.State, d.Checkpoint = next, next.Number
	}
	data, err := encode(d)
	if err != nil {
		return nil, err
	}
	if err := st.create(ctx, d, data); err != nil {
		return nil, err
	}
	if st.now().Sub(st.awake) > napMax {
		// A writer that slept past the floor has created a number that was deleted: its commit does not count.
		if floor, err := st.floor(ctx); err != nil || floor > next.Number {
			return nil, errors.Join(ErrConflict, err)
		}
	}
	st.awake = st.now()
	st.known, st.checkpoint = next, d.Checkpoint
	return next, nil
}

// create puts the object and, whenever the answer is not a plain success, reads it back to see whose it is.
func (st *Store) create(ctx context.Context, d *document, data []byte) error {
	var last error
	for range 3 {
		last = st.bucket.Create(ctx, objectName(d.Number), data)
		if last == nil {
			return nil
		}
		got, err := st.read(ctx, d.Number)
		switch {
		case err == nil && got.Commit == d.Commit:
			return nil
		case err == nil:
			return ErrConflict
		case !errors.Is(err, bucket.ErrNotFound):
			return fmt.Errorf("commit %d: %w (and reading it back: %w)", d.Number, last, err)
		}
	}
	return fmt.Errorf("commit %d: %w", d.Number, last)
}

func (st *Store) read(ctx context.Context, n uint64) (*document, error) {
	raw, err := st.bucket.Get(ctx, objectName(n))
	if err != nil {
		return nil, fmt.Errorf("manifest %d: %w", n, err)
	}
	d, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s in %s: %w", objectName(n), st.bucket, err)
	}
	if d.Number != n {
		return nil, fmt.Errorf("manifest %s in %s says that it is number %d: the bucket was tampered with or copied wrongly", objectName(n), st.bucket, d.Number)
	}
	return d, nil
}

func objectName(n uint64) string { return fmt.Sprintf("manifests/%020d", n) }

// magic begins every manifest: format version, key id and checksum of the payload follow on the same line.
const magic = "afterimage-manifest"

// encode writes the envelope line and the compressed JSON.
func encode(d *document) ([]byte, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	payload := enc.EncodeAll(raw, nil)
	return append(fmt.Appendf(nil, "%s %d none %016x\n", magic, FormatVersion, xxh3.Hash(payload)), payload...), nil
}

// manifestBytesMax bounds what a hostile or damaged manifest may decompress to.
const manifestBytesMax = 4 << 30

func decode(raw []byte) (*document, error) {
	line, payload, ok := bytes.Cut(raw, []byte("\n"))
	f := strings.Fields(string(line[:min(len(line), 200)]))
	if !ok || len(f) != 4 || f[0] != magic {
		return nil, errors.New("not a manifest, or cut off in its first line: run `afterimage verify`")
	}
	if v, err := strconv.Atoi(f[1]); err != nil || v > FormatVersion {
		return nil, fmt.Errorf("format version %s, this program reads up to %d: use a newer afterimage", f[1], FormatVersion)
	}
	if f[2] != "none" {
		return nil, fmt.Errorf("encrypted with key %s, which this program can't use", f[2])
	}
	if sum := fmt.Sprintf("%016x", xxh3.Hash(payload)); sum != f[3] {
		return nil, fmt.Errorf("damaged: checksum %s, stored %s: run `afterimage verify`", sum, f[3])
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(manifestBytesMax))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	doc, err := dec.DecodeAll(payload, nil)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	d := &document{}
	if err := json.Unmarshal(doc, d); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return d, nil
}
