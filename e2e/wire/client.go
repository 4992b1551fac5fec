package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
)

const (
	opMsg       = 2013
	replyMax    = 64 << 20
	dialTimeout = 2 * time.Second
)

// Client is one connection; see the package comment.
type Client struct {
	addrs   []string
	primary bool // look for the primary
	conn    net.Conn
	id      uint32
}

// Primary is a client of whichever of these servers is primary.
func Primary(addrs ...string) *Client { return &Client{addrs: addrs, primary: true} }

// Direct is a client of one server, primary or not.
func Direct(addr string) *Client { return &Client{addrs: []string{addr}} }

// FromURI is a client of the servers of a mongodb:// URI without credentials: direct when it says so, else of their primary.
func FromURI(uri string) *Client {
	rest := strings.TrimPrefix(uri, "mongodb://")
	hosts, query, _ := strings.Cut(rest, "/")
	c := Primary(strings.Split(hosts, ",")...)
	c.primary = !strings.Contains(query, "directConnection=true")
	return c
}

// Close closes the connection.
func (c *Client) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// Error is a command that the server refused, in whole or in part.
type Error struct {
	Code    int64
	Message string
	Concern bool // the write concern failed: the write may yet become durable
	Reply   bson.Raw
}

// Error returns the server's words.
func (e *Error) Error() string { return fmt.Sprintf("server: %s (code %d)", e.Message, e.Code) }

// NotPrimary says whether the server refused because it is not primary, or not for much longer.
func (e *Error) NotPrimary() bool {
	switch e.Code {
	case 91, 189, 10058, 10107, 11600, 11602, 13435, 13436:
		return true
	}
	return false
}

// Code is the server's code in err: 0 for none, -1 for an error that is not the server's.
func Code(err error) int64 {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return -1
}

// Run sends a command and returns the reply. A reply with errors comes with an [*Error]; any other error is the
// connection's, and nobody knows whether the command was carried out.
func (c *Client) Run(ctx context.Context, db string, cmd Doc) (bson.Raw, error) {
	return c.RunSeq(ctx, db, cmd, "")
}

// RunSeq is Run with documents beside the command: they may be of the greatest size.
func (c *Client) RunSeq(ctx context.Context, db string, cmd Doc, name string, docs ...Doc) (bson.Raw, error) {
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	reply, err := c.roundTrip(ctx, With(cmd, "$db", db), name, docs)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("wire: %s: %w", strings.Join(c.addrs, ","), err)
	}
	err = replyError(reply)
	var e *Error
	if c.primary && errors.As(err, &e) && e.NotPrimary() {
		c.Close() // not primary any more, or ending: look again
	}
	return reply, err
}

func (c *Client) connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	var errs []error
	for _, a := range c.addrs {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.conn = conn
		hello, cancel := context.WithTimeout(ctx, dialTimeout)
		reply, err := c.roundTrip(hello, D("isMaster", 1, "$db", "admin"), "", nil)
		cancel()
		if err == nil && c.primary {
			if ok, is := reply.Lookup("ismaster").BooleanOK(); !is || !ok {
				err = fmt.Errorf("%s is not primary", a)
			}
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		c.Close()
	}
	return fmt.Errorf("wire: no server: %w", errors.Join(errs...))
}

func (c *Client) roundTrip(ctx context.Context, body Doc, name string, docs []Doc) (bson.Raw, error) {
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // a closed connection needs none
	defer stop()
	c.id++
	if _, err := conn.Write(message(c.id, body, name, docs)); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	var head [16]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n < 16+5+5 || n > replyMax || binary.LittleEndian.Uint32(head[8:]) != c.id {
		return nil, errors.New("not a reply to what was sent")
	}
	msg := make([]byte, n-16)
	if _, err := io.ReadFull(conn, msg); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	doc := msg[5:] // flags, kind 0
	if size := int(binary.LittleEndian.Uint32(doc)); msg[4] != 0 || size > len(doc) {
		return nil, errors.New("a reply of an unknown kind")
	}
	return bson.Raw(doc), nil
}

func message(id uint32, body Doc, name string, docs []Doc) []byte {
	le := binary.LittleEndian
	b := make([]byte, 4, len(body)+64)
	b = le.AppendUint32(b, id)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, opMsg)
	b = le.AppendUint32(b, 0)
	b = append(b, 0)
	b = append(b, body...)
	if name != "" {
		b = append(b, 1)
		size := len(b)
		b = append(le.AppendUint32(b, 0), name...)
		b = append(b, 0)
		for _, d := range docs {
			b = append(b, d...)
		}
		le.PutUint32(b[size:], uint32(len(b)-size))
	}
	le.PutUint32(b, uint32(len(b)))
	return b
}

func replyError(reply bson.Raw) error {
	if ok, _ := reply.Lookup("ok").AsInt64OK(); ok != 1 {
		return errorOf(reply, reply)
	}
	if errs, ok := reply.Lookup("writeErrors").ArrayOK(); ok {
		if first, err := errs.IndexErr(0); err == nil {
			return errorOf(first.Value().Document(), reply)
		}
	}
	if concern, ok := reply.Lookup("writeConcernError").DocumentOK(); ok {
		e := errorOf(concern, reply)
		e.Concern = true
		return e
	}
	return nil
}

func errorOf(d, reply bson.Raw) *Error {
	code, _ := d.Lookup("code").AsInt64OK()
	text, _ := d.Lookup("errmsg").StringValueOK()
	return &Error{Code: code, Message: text, Reply: reply}
}

// Each calls f with every document of a command that answers with a cursor. The documents are f's to keep.
func (c *Client) Each(ctx context.Context, db string, cmd Doc, f func(bson.Raw) error) error {
	reply, err := c.Run(ctx, db, cmd)
	for batch := "firstBatch"; ; batch = "nextBatch" {
		if err != nil {
			return err
		}
		cursor := reply.Lookup("cursor").Document()
		docs, err := cursor.Lookup(batch).Array().Values()
		if err != nil {
			return fmt.Errorf("wire: %w", err)
		}
		for _, d := range docs {
			if err := f(d.Document()); err != nil {
				return err
			}
		}
		id := cursor.Lookup("id").Int64()
		if id == 0 {
			return nil
		}
		_, coll, _ := strings.Cut(cursor.Lookup("ns").StringValue(), ".")
		reply, err = c.Run(ctx, db, D("getMore", id, "collection", coll))
		if err != nil {
			return err
		}
	}
}

// OperationTime is the operationTime of a reply.
func OperationTime(reply bson.Raw) TS {
	t, i, _ := reply.Lookup("operationTime").TimestampOK()
	return TS{t, i}
}
