package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/buckettest"
)

const testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeService is an S3 service in process whose answers can be tampered with.
type fakeService struct {
	server     *httptest.Server
	real       http.Handler
	completing sync.Mutex
	mu         sync.Mutex
	tamper     func(n int, w http.ResponseWriter, r *http.Request) bool // true: answered
	n          int
}

func newFake(t *testing.T) *fakeService {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	f := &fakeService{real: gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.n++
	n, tamper := f.n, f.tamper
	f.mu.Unlock()
	if tamper == nil || !tamper(n, w, r) {
		f.answer(w, r)
	}
}

// answer adds what gofakes3 lacks: the condition on completing an upload.
func (f *fakeService) answer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
		f.completing.Lock()
		defer f.completing.Unlock()
		head := httptest.NewRecorder()
		f.real.ServeHTTP(head, httptest.NewRequest(http.MethodHead, r.URL.Path, nil))
		if r.Header.Get("If-None-Match") == "*" && head.Code == http.StatusOK {
			w.WriteHeader(http.StatusPreconditionFailed)
			_, _ = io.WriteString(w, `<Error><Code>PreconditionFailed</Code></Error>`)
			return
		}
	}
	f.real.ServeHTTP(w, r)
}

// set starts counting requests anew, from 1.
func (f *fakeService) set(tamper func(int, http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.tamper = 0, tamper
}

func (f *fakeService) store(t *testing.T) *store {
	t.Helper()
	s, err := newStore(t.Context(), Options{Bucket: "backups", Endpoint: f.server.URL, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	s.backoffBase = time.Millisecond
	return s
}

func TestContract(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return bucket.Sub(newFake(t).store(t), "prefix") })
}

func TestContractInParts(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		s := newFake(t).store(t)
		s.partBytes = 3
		if strings.Contains(t.Name(), "ReadWhatWasWritten") {
			s.partBytes = 1 << 20
		}
		return s
	})
}

// lose passes the request on and throws the answer away.
func lose(f *fakeService, w http.ResponseWriter, r *http.Request) bool {
	f.answer(httptest.NewRecorder(), r)
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func TestLostAnswers(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 100)
	for _, partBytes := range []int{1000, 40} {
		for _, verb := range []string{"Create", "Put"} {
			f := newFake(t)
			s := f.store(t)
			s.partBytes = partBytes
			do := s.Create
			if verb == "Put" {
				do = s.Put
			}
			for lost := 1; ; lost++ { // lose the answer to request i, for every i until none is lost
				name := verb + strings.Repeat("i", lost)
				var met atomic.Bool
				f.set(func(n int, w http.ResponseWriter, r *http.Request) bool {
					if n == lost {
						met.Store(true)
					}
					return n == lost && lose(f, w, r)
				})
				if err := do(t.Context(), name, big); err != nil {
					t.Fatalf("%s, parts of %d, answer %d lost: %v", verb, partBytes, lost, err)
				}
				f.set(nil)
				if got, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(got, big) {
					t.Fatalf("%s, parts of %d, answer %d lost: read %q, %v", verb, partBytes, lost, got, err)
				}
				if err := s.Create(t.Context(), name, big); !errors.Is(err, bucket.ErrExists) {
					t.Fatalf("%s, parts of %d, answer %d lost: another Create: %v", verb, partBytes, lost, err)
				}
				if !met.Load() {
					break
				}
			}
		}
	}
}

func status503(_ int, w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func TestRetriesAreBounded(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	f.set(status503)
	_, err := s.Get(t.Context(), "some/object")
	if err == nil || !strings.Contains(err.Error(), "some/object") || !strings.Contains(err.Error(), "backups") {
		t.Fatalf("%v, want the object and the store named", err)
	}
	if f.n != attemptsMax {
		t.Errorf("%d attempts, want %d", f.n, attemptsMax)
	}
	f.set(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	if err := s.Put(t.Context(), "some/object", nil); err == nil || f.n != 1 {
		t.Errorf("403: %v after %d attempts, want 1", err, f.n)
	}
}

// TestConflict: 409 is asked again; when it stays, the object that is there decides.
func TestConflict(t *testing.T) {
	conflict := func(w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `<Error><Code>ConditionalRequestConflict</Code><Message>busy</Message></Error>`)
		return true
	}
	f := newFake(t)
	s := f.store(t)
	f.set(func(n int, w http.ResponseWriter, _ *http.Request) bool { return n < 4 && conflict(w) })
	if err := s.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	f.set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodPut && conflict(w)
	})
	if err := s.Create(t.Context(), "a", []byte("1")); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("contested, and taken: %v, want ErrExists", err)
	}
	if err := s.Create(t.Context(), "b", []byte("1")); err == nil || errors.Is(err, bucket.ErrExists) {
		t.Errorf("contested, and free: %v, want an error that is not ErrExists", err)
	}
}

// TestUnconditionalService: old services ignore If-None-Match; there the product must not start.
func TestUnconditionalService(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	f.set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("If-None-Match")
		return false
	})
	if err := s.Create(t.Context(), "a", nil); !errors.Is(err, afterimage.ErrHalt) {
		t.Errorf("%v, want ErrHalt", err)
	}
}

// TestTornBodies: an answer that breaks off, or whose bytes were changed under way, is asked for again.
func TestTornBodies(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	if err := s.Put(t.Context(), "a", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	tear := func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 2 {
			return false
		}
		rec := httptest.NewRecorder()
		f.real.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:5])
		panic(http.ErrAbortHandler)
	}
	f.set(tear)
	if got, err := s.Get(t.Context(), "a"); err != nil || string(got) != "0123456789" {
		t.Errorf("read %q, %v", got, err)
	}
	f.set(tear)
	if got, err := s.GetRange(t.Context(), "a", 0, 10); err != nil || string(got) != "0123456789" {
		t.Errorf("read %q, %v", got, err)
	}
	f.set(func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("x-amz-checksum-crc32", "AAAAAA==")
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "0123x56789")
		return true
	})
	if got, err := s.Get(t.Context(), "a"); err != nil || string(got) != "0123456789" {
		t.Errorf("changed under way: read %q, %v", got, err)
	}
}

// TestIgnoredRange: a service that answers with another range than it was asked for must not be believed.
func TestIgnoredRange(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	if err := s.Put(t.Context(), "a", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	f.set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	if got, err := s.GetRange(t.Context(), "a", 0, 10); err == nil {
		t.Errorf("read %q without a Content-Range", got)
	}
}

// TestMissingBucket: a bucket that is not there is no empty one.
func TestMissingBucket(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	s.bucket = "missing"
	_, get := s.Get(t.Context(), "a")
	_, size := s.Size(t.Context(), "a")
	for op, err := range map[string]error{
		"Get": get, "Size": size, "Put": s.Put(t.Context(), "a", nil), "Create": s.Create(t.Context(), "a", nil),
		"List": s.List(t.Context(), "", "", func(bucket.Info) error { return nil }),
	} {
		if err == nil || errors.Is(err, bucket.ErrNotFound) || errors.Is(err, bucket.ErrExists) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestCancelled: the caller's end is not retried and stays recognisable.
func TestCancelled(t *testing.T) {
	f := newFake(t)
	s := f.store(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.set(func(n int, w http.ResponseWriter, r *http.Request) bool {
		cancel()
		return status503(n, w, r)
	})
	if _, err := s.Get(ctx, "a"); !errors.Is(err, context.Canceled) || f.n != 1 {
		t.Errorf("%v after %d requests", err, f.n)
	}
}

func TestOptionsAndSecrets(t *testing.T) {
	f := newFake(t)
	for _, o := range []Options{
		{},
		{Bucket: "b", Prefix: "../x"},
		{Bucket: "b", Endpoint: "http://user:" + testSecret + "@host:1"},
		{Bucket: "b", Endpoint: "http://ho st/" + testSecret},
		{Bucket: "b", Endpoint: "http://host/?key=" + testSecret},
		{Bucket: "b", Endpoint: testSecret},
	} {
		if _, err := Open(t.Context(), o); err == nil || strings.Contains(err.Error(), testSecret) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	b, err := Open(t.Context(), Options{Bucket: "backups", Prefix: "/a/b/", Endpoint: f.server.URL, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := "s3://" + strings.TrimPrefix(f.server.URL, "http://") + "/backups/a/b"; b.String() != want {
		t.Errorf("named %s, want %s", b, want)
	}
	f.set(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>`)
		return true
	})
	s := f.store(t)
	if _, err := s.Get(t.Context(), "a"); err == nil || strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "AKIA") || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("%v: want what to check, and no secret", err)
	}
}
