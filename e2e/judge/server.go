package judge

import (
	"context"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

// entry is what listCollections says of one namespace.
type entry struct {
	db, name, kind string
	options        map[string]string
	uuid           wire.Val
	capped         bool
}

// Catalog is what a server has, without documents: read once while DDL is still, good for several times.
type Catalog struct {
	entries []entry
	state   map[string]*Namespace
}

// ReadCatalog lists collections, options and indexes as they are now.
func ReadCatalog(ctx context.Context, c *wire.Client) (*Catalog, error) {
	reply, err := c.Run(ctx, "admin", wire.D("listDatabases", 1, "nameOnly", true))
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	dbs, err := reply.Lookup("databases").Array().Values()
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	cat := &Catalog{state: map[string]*Namespace{}}
	for _, d := range dbs {
		db := d.Document().Lookup("name").StringValue()
		if db == "local" || db == "config" {
			continue
		}
		err := c.Each(ctx, db, wire.D("listCollections", 1, "cursor", wire.D()), func(info bson.Raw) error {
			return cat.add(db, info)
		})
		if err != nil {
			return nil, fmt.Errorf("judge: collections of %s: %w", db, err)
		}
	}
	for _, e := range cat.entries {
		if err := cat.indexes(ctx, c, e); err != nil {
			return nil, fmt.Errorf("judge: indexes of %s.%s: %w", e.db, e.name, err)
		}
	}
	return cat, nil
}

func (cat *Catalog) add(db string, info bson.Raw) error {
	e := entry{db: db, name: info.Lookup("name").StringValue(), kind: info.Lookup("type").StringValue()}
	switch {
	case db == "admin" && e.name != "system.users" && e.name != "system.roles",
		e.name == "system.views", e.name == "system.profile", strings.HasPrefix(e.name, "system.buckets."):
		return nil
	case db == "admin":
		e.kind = "auth"
	default:
		options, err := optionsOf(info.Lookup("options").Document())
		if err != nil {
			return err
		}
		e.options, e.capped = options, options["capped"] == "true"
	}
	if id, err := info.LookupErr("info", "uuid"); err == nil {
		e.uuid = wire.V(id)
	}
	cat.entries = append(cat.entries, e)
	return nil
}

func (cat *Catalog) indexes(ctx context.Context, c *wire.Client, e entry) error {
	n := &Namespace{Kind: e.kind, Options: e.options, Capped: e.capped}
	cat.state[e.db+"."+e.name] = n
	if e.kind == "view" || e.kind == "auth" {
		return nil
	}
	n.Indexes = map[string]string{}
	return c.Each(ctx, e.db, wire.D("listIndexes", e.name, "cursor", wire.D()), func(spec bson.Raw) (err error) {
		n.Indexes[spec.Lookup("name").StringValue()], err = indexOf(spec)
		return err
	})
}

// When says of which time documents are read. With At they are snapshot reads at exactly that time, but for users, which are
// read as they are now, and for capped collections, which refuse them: those are read as they are now when the server is
// Quiesced, else not at all. Without At everything is what is there now.
type When struct {
	At       wire.TS
	Quiesced bool
}

// Read reads the documents and joins them with the catalog.
func (cat *Catalog) Read(ctx context.Context, c *wire.Client, when When, bodies *Bodies) (*State, error) {
	s := &State{Namespaces: map[string]*Namespace{}, bodies: bodies}
	for _, e := range cat.entries {
		ns := e.db + "." + e.name
		n := *cat.state[ns]
		s.Namespaces[ns] = &n
		if n.Kind == "view" {
			continue
		}
		at := when.At
		if n.Capped && at != (wire.TS{}) {
			if at = (wire.TS{}); !when.Quiesced {
				n.Unread = true
				continue
			}
		}
		n.Docs = map[string]hash{}
		if err := c.Each(ctx, e.db, findAll(e, at), digest{&n, bodies}.add); err != nil {
			return nil, fmt.Errorf("judge: documents of %s: %w", ns, err)
		}
	}
	return s, nil
}

func findAll(e entry, at wire.TS) wire.Doc {
	// By UUID: a snapshot find by name answers nothing, without an error, when the name means another collection by now.
	var which any = e.uuid
	if e.kind == "timeseries" {
		which = "system.buckets." + e.name
	} else if e.uuid.Type == 0 {
		which = e.name
	}
	cmd := wire.D("find", which, "batchSize", 2000)
	if e.capped {
		cmd = wire.With(cmd, "hint", wire.D("$natural", 1))
	}
	if at != (wire.TS{}) && e.kind != "auth" {
		cmd = wire.With(cmd, "readConcern", wire.D("level", "snapshot", "atClusterTime", at))
	}
	return cmd
}

// ReadServer reads everything that a server at rest has.
func ReadServer(ctx context.Context, c *wire.Client, bodies *Bodies) (*State, error) {
	cat, err := ReadCatalog(ctx, c)
	if err != nil {
		return nil, err
	}
	return cat.Read(ctx, c, When{}, bodies)
}
