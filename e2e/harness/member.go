package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

const selectTimeout = 15 * time.Second // for a driver's client to find a server

// Member is one mongod with a port and a folder of its own. It keeps both when it is killed and started again.
type Member struct {
	Port int
	Dir  string // data files and log

	binary string
	args   []string
	proc   *process

	mu     sync.Mutex
	client *mongo.Client
}

// Addr is host:port.
func (m *Member) Addr() string { return addr(m.Port) }

// URI reaches this member and no other.
func (m *Member) URI() string { return "mongodb://" + m.Addr() + "/?directConnection=true" }

// LogPath is the mongod's log.
func (m *Member) LogPath() string { return filepath.Join(m.Dir, "mongod.log") }

// outputPath holds what the mongod prints: what is wrong with its arguments, for instance.
func (m *Member) outputPath() string { return filepath.Join(m.Dir, "output.log") }

// Alive says whether the process runs (or is paused).
func (m *Member) Alive() bool { return m.proc.alive() }

// PID is the process id of a member that runs, else 0.
func (m *Member) PID() int {
	if !m.Alive() {
		return 0
	}
	return m.proc.os.Pid
}

// Client returns the one client of this member. It stays good over restarts, and Stop of the set disconnects it.
func (m *Member) Client() (*mongo.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	c, err := connect(m.URI())
	if err == nil {
		m.client = c
	}
	return c, err
}

func connect(uri string) (*mongo.Client, error) {
	// Connect only starts the monitor: what the context bounds is nothing here.
	c, err := mongo.Connect(context.Background(), options.Client().ApplyURI(uri).SetServerSelectionTimeout(selectTimeout))
	if err != nil {
		return nil, fmt.Errorf("harness: client of %s: %w", uri, err)
	}
	return c, nil
}

// Start starts a member that does not run, and waits until it answers.
func (m *Member) Start(ctx context.Context) error {
	if m.Alive() {
		return fmt.Errorf("harness: member %s runs already", m.Addr())
	}
	if err := m.launch(); err != nil {
		return err
	}
	return m.waitUp(ctx)
}

// launch starts the process and does not wait.
func (m *Member) launch() error {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return fmt.Errorf("harness: member %s: %w", m.Addr(), err)
	}
	args := append([]string{
		"--dbpath", m.Dir, "--logpath", m.LogPath(), "--logappend",
		"--port", strconv.Itoa(m.Port), "--bind_ip", "127.0.0.1", "--nounixsocket",
	}, m.args...)
	p, err := startProcess(m.binary, args, nil, m.outputPath())
	if err != nil {
		return err
	}
	m.proc = p
	return nil
}

// waitUp waits until the mongod of our process, and no other on the same port, answers.
func (m *Member) waitUp(ctx context.Context) error {
	err := poll(ctx, m.proc, func(ctx context.Context) error {
		var status struct {
			PID int64 `bson:"pid"`
		}
		err := m.quick(ctx, bson.D{{Key: "serverStatus", Value: 1}, {Key: "repl", Value: 0}, {Key: "metrics", Value: 0}, {Key: "locks", Value: 0}}, &status)
		if err == nil && status.PID != int64(m.proc.os.Pid) {
			err = fmt.Errorf("port %d belongs to process %d", m.Port, status.PID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("harness: member %s does not come up: %w; its log ends:\n%s\n%s", m.Addr(), err, logTail(m.LogPath()), logTail(m.outputPath()))
	}
	return nil
}

// quick runs an admin command with a short limit: for polling members that may be paused or dead.
func (m *Member) quick(ctx context.Context, cmd bson.D, out any) error {
	if !m.Alive() {
		return os.ErrProcessDone
	}
	c, err := m.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.Database("admin").RunCommand(ctx, cmd).Decode(out)
}

// Kill ends the member at once (SIGKILL) and waits until it is gone.
func (m *Member) Kill() error { return m.proc.kill() }

// Pause freezes the member (SIGSTOP): its connections stay open and nothing answers.
func (m *Member) Pause() error { return m.proc.signal(syscall.SIGSTOP) }

// Resume lets a paused member go on (SIGCONT).
func (m *Member) Resume() error { return m.proc.signal(syscall.SIGCONT) }

// Shutdown ends the member in an orderly way (SIGTERM) and waits; a primary steps down first.
func (m *Member) Shutdown() error { return m.proc.stop() }

// Restart ends the member in an orderly way and starts it on the same port and files.
func (m *Member) Restart(ctx context.Context) error {
	if err := m.Shutdown(); err != nil {
		return err
	}
	return m.Start(ctx)
}

// hello is what a member says of itself.
type hello struct {
	Primary   bool   `bson:"isWritablePrimary"`
	Secondary bool   `bson:"secondary"`
	SetName   string `bson:"setName"`
}

func (m *Member) hello(ctx context.Context) (hello, error) {
	var h hello
	err := m.quick(ctx, bson.D{{Key: "hello", Value: 1}}, &h)
	return h, err
}

// disconnect drops the client; the next Client makes a new one.
func (m *Member) disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	disconnect(m.client)
	m.client = nil
}

// disconnect lets go of a client whose servers may be gone: its farewell is short, and its failure means nothing.
func disconnect(c *mongo.Client) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Disconnect(ctx)
}
