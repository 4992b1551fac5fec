package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
)

const (
	readyTimeout   = 90 * time.Second
	portTries      = 3 // a free port may be gone when the mongod asks for it
	defaultOplogMB = 512
	defaultCacheGB = 0.25
)

// Options say what StartReplicaSet starts. The zero value is a set of one member of MongoDB 6.0.
type Options struct {
	Version string // Mongo60 (default), Mongo50, Mongo44
	Name    string // of the set; default "rs"
	Members int    // default 1

	// Standalone starts one mongod without a replica set: a restore target, for instance.
	Standalone bool
	// Role makes the set part of a sharded cluster: "shardsvr" or "configsvr".
	Role string
	// TTLMonitorOff keeps a restored server from deleting what was alive at the time restored.
	TTLMonitorOff bool

	OplogMB int     // default 512
	CacheGB float64 // of each member; default 0.25
	// ElectionTimeout is short by default (2 s), so that tests of fail-over are.
	ElectionTimeout time.Duration
	// Args are further arguments of each mongod, for instance "--setParameter", "transactionLifetimeLimitSeconds=3".
	Args []string

	// Dir holds the files. Default: a new temporary folder that Stop removes; a folder given is left alone.
	Dir string
}

// ReplicaSet is a set of members that run on this machine.
type ReplicaSet struct {
	Name    string // empty for a standalone
	Members []*Member

	dir       string
	temporary bool

	mu     sync.Mutex
	client *mongo.Client
}

// StartReplicaSet starts the members, joins them, and waits until one is primary and the others are secondaries. The caller
// calls Stop.
func StartReplicaSet(ctx context.Context, o Options) (*ReplicaSet, error) {
	program, err := Mongod(o.Version)
	if err != nil {
		return nil, err
	}
	binary, err := program.Path()
	if err != nil {
		return nil, err
	}
	if o.Standalone && (o.Members > 1 || o.Role != "") {
		return nil, errors.New("harness: a standalone has one member and no role")
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()

	rs := &ReplicaSet{dir: o.Dir}
	if !o.Standalone {
		rs.Name = orDefault(o.Name, "rs")
	}
	if rs.dir == "" {
		if rs.dir, err = os.MkdirTemp("", "afterimage-mongo-"); err != nil {
			return nil, fmt.Errorf("harness: %w", err)
		}
		rs.temporary = true
	}
	if err := rs.start(ctx, binary, o); err != nil {
		return nil, errors.Join(err, rs.Stop())
	}
	return rs, nil
}

func (rs *ReplicaSet) start(ctx context.Context, binary string, o Options) error {
	ports, err := freePorts(orDefault(o.Members, 1))
	if err != nil {
		return err
	}
	for i, port := range ports {
		m := &Member{Port: port, Dir: filepath.Join(rs.dir, "n"+strconv.Itoa(i)), binary: binary, args: o.mongodArgs(rs.Name)}
		rs.Members = append(rs.Members, m)
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range rs.Members {
		if err := m.waitUpOrMove(ctx); err != nil {
			return err
		}
	}
	if rs.Name == "" {
		return nil
	}
	if err := rs.initiate(ctx, o); err != nil {
		return err
	}
	if _, err := rs.WaitPrimary(ctx); err != nil {
		return err
	}
	return rs.WaitReady(ctx)
}

// waitUpOrMove waits for a new member and gives it another port when somebody was faster.
func (m *Member) waitUpOrMove(ctx context.Context) error {
	for try := 1; ; try++ {
		err := m.waitUp(ctx)
		if err == nil || m.Alive() || try == portTries || !strings.Contains(logTail(m.LogPath()), "Address already in use") {
			return err
		}
		ports, perr := freePorts(1)
		if perr != nil {
			return errors.Join(err, perr)
		}
		m.disconnect()
		m.Port = ports[0]
		if err := m.launch(); err != nil {
			return err
		}
	}
}

func (o Options) mongodArgs(set string) []string {
	args := []string{
		"--wiredTigerCacheSizeGB", strconv.FormatFloat(orDefault(o.CacheGB, defaultCacheGB), 'f', -1, 64),
		"--setParameter", "diagnosticDataCollectionEnabled=false",
		"--setParameter", "enableTestCommands=1",
	}
	if o.Version != Mongo44 { // which does not know it
		args = append(args, "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100") // else 15 s for clients to notice
	}
	if set != "" {
		args = append(args, "--replSet", set, "--oplogSize", strconv.Itoa(orDefault(o.OplogMB, defaultOplogMB)))
	}
	if o.Role != "" {
		args = append(args, "--"+o.Role)
	}
	if o.TTLMonitorOff {
		args = append(args, "--setParameter", "ttlMonitorEnabled=false")
	}
	return append(args, o.Args...)
}

func (rs *ReplicaSet) initiate(ctx context.Context, o Options) error {
	members := bson.A{}
	for i, m := range rs.Members {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: m.Addr()}})
	}
	config := bson.D{{Key: "_id", Value: rs.Name}, {Key: "members", Value: members}, {Key: "settings", Value: bson.D{
		{Key: "electionTimeoutMillis", Value: orDefault(o.ElectionTimeout, 2*time.Second).Milliseconds()},
		{Key: "heartbeatIntervalMillis", Value: 500},
	}}}
	if o.Role == "configsvr" {
		config = append(config, bson.E{Key: "configsvr", Value: true})
	}
	c, err := rs.Members[0].Client()
	if err != nil {
		return err
	}
	cmd := bson.D{{Key: "replSetInitiate", Value: config}}
	if err := c.Database("admin").RunCommand(ctx, cmd).Err(); err != nil {
		return fmt.Errorf("harness: initiate %s: %w", rs.Name, err)
	}
	return nil
}

// Dir is the folder of the members' files.
func (rs *ReplicaSet) Dir() string { return rs.dir }

// URI reaches the set; for a standalone, its one mongod.
func (rs *ReplicaSet) URI() string {
	if rs.Name == "" {
		return rs.Members[0].URI()
	}
	hosts := make([]string, len(rs.Members))
	for i, m := range rs.Members {
		hosts[i] = m.Addr()
	}
	return "mongodb://" + strings.Join(hosts, ",") + "/?replicaSet=" + rs.Name
}

// Client returns the one client of the set, which follows the primary. Stop disconnects it.
func (rs *ReplicaSet) Client() (*mongo.Client, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.client != nil {
		return rs.client, nil
	}
	c, err := connect(rs.URI())
	if err == nil {
		rs.client = c
	}
	return c, err
}

// ErrNoPrimary is in the error when no member is primary now.
var ErrNoPrimary = errors.New("no primary")

// Primary asks the members which of them is primary now.
func (rs *ReplicaSet) Primary(ctx context.Context) (*Member, error) {
	for _, m := range rs.Members {
		if h, err := m.hello(ctx); err == nil && h.Primary {
			return m, nil
		}
	}
	return nil, fmt.Errorf("harness: %s: %w", rs.Name, ErrNoPrimary)
}

// WaitPrimary waits until a member is primary.
func (rs *ReplicaSet) WaitPrimary(ctx context.Context) (*Member, error) {
	var primary *Member
	err := poll(ctx, nil, func(ctx context.Context) (err error) {
		primary, err = rs.Primary(ctx)
		return err
	})
	return primary, err
}

// Secondaries are the members that are secondaries now.
func (rs *ReplicaSet) Secondaries(ctx context.Context) []*Member {
	var out []*Member
	for _, m := range rs.Members {
		if h, err := m.hello(ctx); err == nil && h.Secondary {
			out = append(out, m)
		}
	}
	return out
}

// WaitReady waits until every member that runs is primary or secondary, one of them primary.
func (rs *ReplicaSet) WaitReady(ctx context.Context) error {
	return poll(ctx, nil, func(ctx context.Context) error {
		if _, err := rs.Primary(ctx); err != nil {
			return err
		}
		for _, m := range rs.Members {
			if !m.Alive() {
				continue
			}
			if h, err := m.hello(ctx); err != nil || !h.Primary && !h.Secondary {
				return fmt.Errorf("harness: member %s is not ready: %w", m.Addr(), orDefault(err, errStarting))
			}
		}
		return nil
	})
}

var errStarting = errors.New("neither primary nor secondary")

// StepDown makes the primary a secondary for that long and waits until there is another primary.
func (rs *ReplicaSet) StepDown(ctx context.Context, forAtLeast time.Duration) (*Member, error) {
	old, err := rs.WaitPrimary(ctx)
	if err != nil {
		return nil, err
	}
	c, err := old.Client()
	if err != nil {
		return nil, err
	}
	seconds := max(1, int(forAtLeast.Round(time.Second)/time.Second))
	cmd := bson.D{{Key: "replSetStepDown", Value: seconds}, {Key: "secondaryCatchUpPeriodSecs", Value: min(seconds, 10)}, {Key: "force", Value: true}}
	if err := c.Database("admin").RunCommand(ctx, cmd).Err(); err != nil && !mongo.IsNetworkError(err) {
		return nil, fmt.Errorf("harness: step down %s: %w", old.Addr(), err)
	}
	return rs.WaitPrimary(ctx)
}

// Stop kills the members, disconnects the clients, and removes the files if the harness made the folder. It can be called
// twice.
func (rs *ReplicaSet) Stop() error {
	var errs []error
	for _, m := range rs.Members {
		errs = append(errs, m.Kill())
	}
	for _, m := range rs.Members {
		m.disconnect()
	}
	rs.mu.Lock()
	disconnect(rs.client)
	rs.client = nil
	rs.mu.Unlock()
	if rs.temporary {
		errs = append(errs, os.RemoveAll(rs.dir))
	}
	return errors.Join(errs...)
}

// orDefault is v, or d when v is its type's zero.
func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
