package mongodb

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/restorer"
)

// indexes builds the indexes after the data: one pass for all of them. One that can't be built is reported, not fatal.
func (r *run) indexes(ctx context.Context, p *plannedTable, rep *restorer.NamespaceReport) error {
	rep.Indexes = 0
	if len(p.indexes) == 0 {
		return nil
	}
	specs := make([][]byte, 0, len(p.indexes))
	for _, spec := range p.indexes {
		specs = append(specs, r.indexSpec(p, spec))
	}
	err := r.createIndexes(ctx, p, false, specs...)
	if err == nil {
		rep.Indexes = len(specs)
		return nil
	}
	if ctx.Err() != nil || transient(err) {
		return err
	}
	for _, spec := range specs {
		if err := r.oneIndex(ctx, p, spec); err != nil {
			if ctx.Err() != nil || transient(err) {
				return err
			}
			rep.Failed = append(rep.Failed, fmt.Sprintf("index %s was not built: %v", jsonOf(spec), err))
			continue
		}
		rep.Indexes++
	}
	return nil
}

// oneIndex builds an index alone; old servers took options that no server knows, which newer ones refuse.
func (r *run) oneIndex(ctx context.Context, p *plannedTable, spec []byte) error {
	err := r.createIndexes(ctx, p, false, spec)
	if err == nil || ctx.Err() != nil || transient(err) {
		return err
	}
	if r.createIndexes(ctx, p, true, spec) != nil {
		return err
	}
	r.warn(fmt.Sprintf("%s: index %s was built without the options that this server does not know: %v", p.shown, jsonOf(spec), err))
	return nil
}

func (r *run) createIndexes(ctx context.Context, p *plannedTable, ignoreUnknown bool, specs ...[]byte) error {
	cmd := newCommand("createIndexes", p.name).array("indexes", specs...)
	if ignoreUnknown {
		cmd = cmd.flag("ignoreUnknownIndexOptions", true)
	}
	if r.target.set && r.target.major >= 5 {
		// The default waits for all voting members, so one that is down would hold the restore up for ever.
		cmd = cmd.str("commitQuorum", "majority")
	}
	_, err := r.target.run(ctx, p.db, cmd.written("majority").end())
	return err
}

// holdSeconds, 68 years, is the largest time to live that every server takes for an index.
const holdSeconds = 2147483647

// indexSpec is a specification as at T, but for what belongs to the collection it was in, and for a held TTL.
func (r *run) indexSpec(p *plannedTable, spec []byte) bson.Raw {
	spec = without(spec, "ns")
	ttl, ok := lookup(spec, "expireAfterSeconds")
	if !ok || r.opts.TTL != TTLHold {
		return spec
	}
	out := newDocument()
	name := ""
	_ = walk(spec, func(e element) bool {
		if string(e.name) == "expireAfterSeconds" {
			out = out.i64("expireAfterSeconds", holdSeconds)
			return true
		}
		if string(e.name) == "name" {
			name, _ = bson.RawValue{Type: e.btype(), Value: spec[e.value:e.end]}.StringValueOK()
		}
		out = append(out, spec[e.at:e.end]...)
		return true
	})
	_, coll := splitNamespace(p.shown)
	original := seconds(spec, ttl)
	r.held(restorer.HeldTTL{
		Namespace: p.shown, Index: name, Original: original,
		Command: fmt.Sprintf("db.getSiblingDB(%q).runCommand({collMod: %q, index: {name: %q, expireAfterSeconds: %s}})",
			p.db, coll, name, original),
	})
	return out.end()
}

// dropOwnIndexes removes what newer servers create with a time-series by themselves; those of T are created later.
func (r *run) dropOwnIndexes(ctx context.Context, p *plannedTable) error {
	reply, err := r.target.run(ctx, p.db, newCommand("listIndexes", p.name).end())
	if err != nil {
		return fmt.Errorf("list indexes: %w", err)
	}
	batch, _ := reply.Lookup("cursor", "firstBatch").ArrayOK()
	var names []string
	_ = walk(batch, func(e element) bool {
		spec := bson.Raw(batch[e.value:e.end])
		_, clustered := lookup(spec, "clustered")
		if name, ok := spec.Lookup("name").StringValueOK(); ok && !clustered && name != "_id_" {
			names = append(names, name)
		}
		return true
	})
	for _, name := range names {
		cmd := newCommand("dropIndexes", p.name).str("index", name).end()
		if _, err := r.target.run(ctx, p.db, cmd); err != nil {
			return fmt.Errorf("drop the index %s that the server made: %w", name, err)
		}
	}
	return nil
}
