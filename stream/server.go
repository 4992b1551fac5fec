package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// embeddedPayloadBytes is the largest message of the embedded server: the most that it is meant to be set to.
	embeddedPayloadBytes = 8 << 20
	serverStartTimeout   = 30 * time.Second
	lockName             = "afterimage.lock"
)

// embedded is a JetStream server in this process, with its directory locked against a second one. It can be started
// again while clients hold connections to it: they connect to the new one by themselves.
type embedded struct {
	lock         *os.File
	dir          string
	syncInterval time.Duration
	log          *slog.Logger

	mu     sync.Mutex
	server *server.Server
	closed bool
}

// serverOptions are the settings of the embedded server: no port, no signals, every write synced unless said otherwise.
func serverOptions(dir string, syncInterval time.Duration) *server.Options {
	return &server.Options{
		ServerName:             "afterimage",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               dir,
		SyncAlways:             syncInterval == 0,
		SyncInterval:           syncInterval,
		MaxPayload:             embeddedPayloadBytes,
		JetStreamMaxMemory:     64 << 20,
		// Each stream has its own limit, and the publisher looks at the free space of the disk. The server's own
		// limit would count what streams may grow to as used.
		JetStreamMaxStore: math.MaxInt64 / 2,
		NoSystemAccount:   true,
	}
}

func startEmbedded(ctx context.Context, dir string, syncInterval time.Duration, log *slog.Logger) (*embedded, error) {
	if dir == "" {
		return nil, errors.New("the embedded stream needs a directory")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the stream's directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	e := &embedded{lock: lock, dir: dir, syncInterval: syncInterval, log: log.With("component", "nats")}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return e, nil
}

// start starts a server. The caller holds e.mu or is alone.
func (e *embedded) start(ctx context.Context) error {
	s, err := server.NewServer(serverOptions(e.dir, e.syncInterval))
	if err != nil {
		return fmt.Errorf("embedded stream in %s: %w", e.dir, err)
	}
	s.SetLoggerV2(&serverLog{e.log}, false, false, false)
	s.Start()
	timeout := serverStartTimeout
	if at, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(at))
	}
	if !s.ReadyForConnections(timeout) || !s.JetStreamEnabled() {
		stop(s)
		return fmt.Errorf("embedded stream in %s did not start within %s: see the log lines of component nats", e.dir, timeout)
	}
	e.server = s
	return nil
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// restart starts a new server in place of old; it does nothing if that was done already.
func (e *embedded) restart(ctx context.Context, old *server.Server) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != old || e.closed {
		return nil
	}
	free, err := freeBytes(e.dir)
	if err != nil {
		return err
	}
	if free < diskReserveBytes {
		return fmt.Errorf("the disk of %s has %d bytes left, less than the reserve of %d: make room", e.dir, free, diskReserveBytes)
	}
	e.log.Warn("starting the embedded stream again: it stopped writing", "dir", e.dir)
	stop(old)
	return e.start(ctx)
}

// InProcessConn connects a client to the server of now.
func (e *embedded) InProcessConn() (net.Conn, error) { return e.current().InProcessConn() }

func (e *embedded) current() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

func (e *embedded) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	stop(e.server)
	return e.lock.Close()
}

// lockDir keeps a second server away: two on one directory would destroy it. The lock ends with the process, however
// that ends.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock the stream's directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("stream directory %s is in use by another afterimage process: stop that one, or give this one a data_dir of its own", dir)
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", name, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// freeBytes is the space that is left for us on the disk that dir is on.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize)) * uint64(st.Bsize)), nil
}

// serverLog writes the server's lines to slog. Its notices are about itself: debug for us.
type serverLog struct{ log *slog.Logger }

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(line(format, v)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log.Error(line(format, v)) }
func (l *serverLog) Fatalf(format string, v ...any)  { l.log.Error(line(format, v)) }

func line(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
