package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage"
)

// Embedded is the URL of a server in this process.
const Embedded = "embedded"

const (
	defaultStreamBytes = 8 << 30
	requestTimeout     = 5 * time.Second
	// payloadHeadroom is left in a message for the headers that we send with it.
	payloadHeadroom = 1 << 10
	minPayloadBytes = 64 << 10
	reconnectWait   = 50 * time.Millisecond // to a server in this process
)

// Metadata of a stream: the names as they were given.
const (
	metaSource = "afterimage_source"
	metaLane   = "afterimage_lane"
)

// Options says which server to use and for which source.
type Options struct {
	URL    string // [Embedded], or nats://host:port,... of an external cluster
	Dir    string // embedded: directory of the server, for nothing else
	Source string // name of the source

	// Replicas of a new stream, 0 = 1. External clusters: 3.
	Replicas int
	// MaxBytes is the most that one lane's stream holds before publishers wait; 0 = 8 GiB, embedded at most half of
	// what the disk has left when the stream is made.
	MaxBytes int64
	// SyncInterval of the embedded server. 0 syncs each message before it is acknowledged; more than that loses up to
	// this much of acknowledged changes when the machine loses power.
	SyncInterval time.Duration

	// How to log in to an external cluster, beside a user and password in URL.
	CredentialsFile string // file of a JWT and an nkey seed
	User, Password  string
	Token           string
	TLS             *tls.Config // nil: TLS only if the server or the URL (tls://) asks for it

	Logger     *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
}

// Bus is a connection to a JetStream server, and the server itself when it is embedded.
type Bus struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	server  *embedded // nil for an external cluster
	nc      *nats.Conn
	js      jetstream.JetStream
}

// Open starts the embedded server or connects to an external one. A directory in use by another process is refused.
func Open(ctx context.Context, opts Options) (*Bus, error) {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if _, err := cleanName("source", opts.Source); err != nil {
		return nil, err
	}
	m, err := newMetrics(opts.Registerer, opts.Source)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the stream: %w", err)
	}
	b := &Bus{opts: opts, log: log, metrics: m}
	if opts.URL == "" || opts.URL == Embedded {
		if b.server, err = startEmbedded(ctx, opts.Dir, opts.SyncInterval, log); err != nil {
			return nil, err
		}
	}
	if err := b.connect(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close drops what is not acknowledged, closes the connection and stops the embedded server. Call [Lane.Flush] before.
func (b *Bus) Close() error {
	if b.nc != nil {
		b.nc.Close()
	}
	if b.server == nil {
		return nil
	}
	return b.server.close()
}

// revive starts an embedded server again whose JetStream switched itself off, as it does when the disk is full.
func (b *Bus) revive(ctx context.Context) error {
	if b.server == nil {
		return nil
	}
	s := b.server.current()
	if s.JetStreamEnabled() {
		return nil
	}
	return b.restart(ctx, s)
}

// restart puts a new embedded server in the place of old and waits until the connection is back.
func (b *Bus) restart(ctx context.Context, old *server.Server) error {
	if err := b.server.restart(ctx, old); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for {
		err := b.nc.FlushWithContext(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, 0) != nil {
			return fmt.Errorf("connect to the embedded stream after it was started again: %w", err)
		}
	}
}

func (b *Bus) connect(ctx context.Context) error {
	opts := []nats.Option{
		nats.Name("afterimage " + b.opts.Source),
		nats.MaxReconnects(-1),
		// What could not be sent fails at once: our publisher knows best whether to send it again.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("lost the connection to the stream", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { b.log.Info("connected to the stream again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { b.log.Warn("stream", "error", err) }),
	}
	where := b.opts.URL
	if b.server != nil {
		where = ""
		opts = append(opts, nats.InProcessServer(b.server), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(0, 0))
	} else {
		opts = append(opts, b.loginOptions()...)
	}
	if at, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(max(time.Until(at), time.Millisecond)))
	}
	nc, err := nats.Connect(where, opts...)
	if err != nil {
		return fmt.Errorf("connect to the stream at %s: %w", redact(b.opts.URL), err)
	}
	b.nc = nc
	if nc.MaxPayload() < minPayloadBytes {
		return fmt.Errorf("the stream at %s takes messages of %d bytes at most: set its max_payload to 1 MB or more", redact(b.opts.URL), nc.MaxPayload())
	}
	b.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

func (b *Bus) loginOptions() []nats.Option {
	var opts []nats.Option
	o := &b.opts
	if o.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(o.CredentialsFile))
	}
	if o.User != "" {
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	}
	if o.Token != "" {
		opts = append(opts, nats.Token(o.Token))
	}
	if o.TLS != nil {
		opts = append(opts, nats.Secure(o.TLS))
	}
	return opts
}

// redact removes passwords from a list of URLs.
func redact(urls string) string {
	if urls == "" {
		return Embedded
	}
	list := strings.Split(urls, ",")
	for i, s := range list {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil:
			list[i] = "(a URL that can't be parsed)"
		case u.User != nil:
			u.User = url.User("xxxxx") // a user alone is a token
			list[i] = u.String()
		}
	}
	return strings.Join(list, ",")
}

// Lane makes or opens the stream of a lane. Each call begins a publisher of its own: two of them fence one another.
func (b *Bus) Lane(ctx context.Context, lane string) (*Lane, error) {
	name, subject, err := streamNames(b.opts.Source, lane)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	s, err := b.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = b.makeStream(ctx, name, subject, lane, 0)
	} else if err == nil {
		s, err = b.adjustStream(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("stream of lane %q of source %q: %w", lane, b.opts.Source, err)
	}
	return newLane(b, lane, subject, s), nil
}

// makeStream makes the stream of a lane; firstSeq is the sequence of its first message, 0 for 1.
func (b *Bus) makeStream(ctx context.Context, name, subject, lane string, firstSeq uint64) (jetstream.Stream, error) {
	limit := b.opts.MaxBytes
	if limit <= 0 {
		limit = defaultStreamBytes
		if b.server != nil {
			free, err := freeBytes(b.server.dir)
			if err != nil {
				return nil, err
			}
			limit = min(limit, free/2)
		}
	}
	cfg := jetstream.StreamConfig{
		Name:        name,
		Description: "afterimage: the log of one lane",
		Subjects:    []string{subject},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    limit,
		FirstSeq:    firstSeq,
		Replicas:    max(b.opts.Replicas, 1),
		// Message ids are unique here and only serve to fence: nothing is to be remembered for a while.
		Duplicates: 100 * time.Millisecond,
		Metadata:   map[string]string{metaSource: b.opts.Source, metaLane: lane},
	}
	s, err := b.js.CreateStream(ctx, cfg)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return b.js.Stream(ctx, name)
	}
	return s, err
}

// adjustStream applies a changed limit or number of replicas to a stream that is there.
func (b *Bus) adjustStream(ctx context.Context, s jetstream.Stream) (jetstream.Stream, error) {
	cfg := s.CachedInfo().Config
	if cfg.Discard != jetstream.DiscardNew || cfg.Retention != jetstream.LimitsPolicy || cfg.MaxAge != 0 || cfg.MaxMsgs > 0 {
		return nil, fmt.Errorf("%w: stream %s drops messages by itself (discard %s, retention %s, max age %s): set discard new, retention limits and no other limit than bytes", afterimage.ErrHalt, cfg.Name, cfg.Discard, cfg.Retention, cfg.MaxAge)
	}
	limit, replicas := cfg.MaxBytes, cfg.Replicas
	if b.opts.MaxBytes > 0 {
		limit = b.opts.MaxBytes
	}
	if b.opts.Replicas > 0 {
		replicas = b.opts.Replicas
	}
	if limit == cfg.MaxBytes && replicas == cfg.Replicas {
		return s, nil
	}
	cfg.MaxBytes, cfg.Replicas = limit, replicas
	return b.js.UpdateStream(ctx, cfg)
}

// Lanes returns the names of the source's lanes that have a stream.
func (b *Bus) Lanes(ctx context.Context) ([]string, error) {
	source, err := cleanName("source", b.opts.Source)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var lanes []string
	list := b.js.ListStreams(ctx, jetstream.WithStreamListSubject(subjectOf(source, "*")))
	for info := range list.Info() {
		if lane, ok := info.Config.Metadata[metaLane]; ok && info.Config.Metadata[metaSource] == b.opts.Source {
			lanes = append(lanes, lane)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list the lanes of source %q: %w", b.opts.Source, err)
	}
	return lanes, nil
}

// bounded limits the time of a request: a server that is electing a leader or shutting down drops requests unanswered.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, requestTimeout)
}

// messageBytesMax is the largest piece that is put in one message.
func (b *Bus) messageBytesMax() int { return int(b.nc.MaxPayload()) - payloadHeadroom }
