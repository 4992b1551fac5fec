package chaos

import (
	"math"
	"strconv"
	"time"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

// change is one update: a document of operators, a pipeline or a replacement.
type change struct {
	u       wire.Val
	query   []any // more conditions, for positional operators
	filters wire.Arr
}

func set(op string, pairs ...any) change { return change{u: wire.V(wire.D(op, wire.D(pairs...)))} }

func pipeline(stages ...any) change { return change{u: wire.V(wire.A(stages...))} }

// change draws an update. Many fail on the document they meet; that is part of it.
func (g gen) change() change {
	all := []func() change{
		func() change { return set("$set", g.name(true), g.value(2)) },
		func() change { return set("$set", "s.t.u", g.value(1), "s.new"+strconv.Itoa(g.r.IntN(5)), g.value(1)) },
		func() change { return set("$set", "a."+strconv.Itoa(g.r.IntN(8)), g.scalar()) },
		func() change { return set("$set", "docs."+strconv.Itoa(g.r.IntN(3))+".v", g.value(2)) },
		func() change { return set("$set", "x.y.z."+strconv.Itoa(g.r.IntN(3)), g.scalar(), "n", g.r.IntN(50)) },
		func() change { return set("$set", "zero", wire.TS{}, "s.zero", wire.TS{}) },
		func() change { return set("$set", "wide", g.wide()) },
		func() change { return set("$set", "wide.w"+strconv.Itoa(g.r.IntN(300)), g.text(5)) },
		func() change { return set("$unset", "f"+strconv.Itoa(g.r.IntN(6)), 1, "s.t.w", "") },
		func() change { return set("$unset", "a."+strconv.Itoa(g.r.IntN(3)), 1) },
		func() change { return set("$unset", "wide.w"+strconv.Itoa(g.r.IntN(300)), 1) },
		func() change { return set("$inc", "n", g.number(1+g.r.IntN(5)), "s.x", 1) },
		func() change { return set("$inc", "f", 0.5, "new."+strconv.Itoa(g.r.IntN(3)), int64(math.MaxInt32)) },
		func() change { return set("$mul", "n", g.number(g.r.IntN(3)), "f", -1.0) },
		func() change { return set("$min", "n", g.r.IntN(20), "s.t.u", g.r.IntN(9)) },
		func() change { return set("$max", "n", g.scalar(), "str", g.text(3)) },
		func() change {
			return set("$rename", "f"+strconv.Itoa(g.r.IntN(6)), "f"+strconv.Itoa(6+g.r.IntN(3)), "s.t.w", "moved.w")
		},
		func() change { return set("$rename", "str", "s.str", "moved", "back") },
		func() change { return set("$push", "a", g.value(1)) },
		func() change { return set("$push", "a", wire.D("$each", g.array(1), "$slice", g.r.IntN(12)-6)) },
		func() change {
			return set("$push", "a", wire.D("$each", wire.A(g.r.IntN(9), g.r.IntN(9)), "$sort", 1-2*g.r.IntN(2), "$slice", -8))
		},
		func() change {
			return set("$push", "docs", wire.D("$each", wire.A(wire.D("k", g.r.IntN(9), "v", g.scalar())), "$position", g.r.IntN(4), "$sort", wire.D("k", 1)))
		},
		func() change { return set("$push", "a", wire.D("$each", wire.A("head"), "$position", 0)) },
		func() change { return set("$pull", "a", g.r.IntN(9)) },
		func() change { return set("$pull", "docs", wire.D("k", wire.D("$gt", g.r.IntN(5)))) },
		func() change { return set("$pullAll", "a", wire.A(1, 2.0, int64(3), "head")) },
		func() change { return set("$pop", "a", 1-2*g.r.IntN(2), "docs", 1) },
		func() change { return set("$addToSet", "a", g.scalar()) },
		func() change { return set("$addToSet", "a", wire.D("$each", g.array(1))) },
		func() change { return set("$bit", "bits", wire.D("xor", g.r.IntN(256)), "n", wire.D("or", 4)) },
		func() change { return set("$currentDate", "at", true, "s.at", wire.D("$type", "timestamp")) },
		func() change { return set("$setOnInsert", "born", g.scalar(), "a", wire.A(1, 2)) },
		func() change {
			return change{u: wire.V(wire.D("$set", wire.D("a.$[x]", g.scalar()))), filters: wire.A(wire.D("x", wire.D("$gt", g.r.IntN(9))))}
		},
		func() change {
			return change{u: wire.V(wire.D("$set", wire.D("docs.$[d].v", g.value(1)), "$inc", wire.D("docs.$[].k", 1))), filters: wire.A(wire.D("d.k", g.r.IntN(4)))}
		},
		func() change {
			return change{u: wire.V(wire.D("$set", wire.D("docs.$.v", g.value(1)))), query: []any{"docs.k", g.r.IntN(4)}}
		},
		func() change {
			return change{u: wire.V(wire.D("$unset", wire.D("a.$", 1))), query: []any{"a", wire.D("$gt", 3)}}
		},
		func() change {
			return pipeline(wire.D("$set", wire.D("sum", wire.D("$add", wire.A("$s.x", 1)), "lit", wire.D("$literal", g.value(2)))), wire.D("$unset", "f1"))
		},
		func() change {
			return pipeline(wire.D("$replaceWith", wire.D("$mergeObjects", wire.A("$$ROOT", wire.D("w", g.r.IntN(9))))))
		},
		func() change {
			return pipeline(wire.D("$set", wire.D("a", wire.D("$concatArrays", wire.A(wire.D("$ifNull", wire.A("$a", wire.A())), wire.A(1))), "zero", wire.D("$literal", wire.TS{}))))
		},
		func() change {
			return pipeline(wire.D("$set", wire.D("a", wire.D("$slice", wire.A("$a", 2)))), wire.D("$project", wire.D("wide", 0, "f2", 0)))
		},
		func() change {
			if g.v44 {
				return set("$set", "last", 1)
			}
			return pipeline(wire.D("$replaceWith", wire.D("$setField", wire.D("field", wire.D("$literal", []any{"a.b", "$x", ""}[g.r.IntN(3)]), "input", "$$ROOT", "value", g.r.IntN(9)))))
		},
		func() change { // several operators at once
			return change{u: wire.V(wire.D("$set", wire.D("f0", g.value(1), "s.t.u", 1), "$unset", wire.D("f1", 1), "$push", wire.D("a", 5), "$inc", wire.D("n", 1)))}
		},
		func() change { return change{u: wire.V(g.replacement())} },
		func() change { return change{u: wire.V(wire.D())} },
		func() change {
			return set("$set", "expires", time.Now().Add(time.Duration(g.r.IntN(20))*time.Second))
		},
	}
	return all[g.r.IntN(len(all))]()
}

// replacement is a document without _id.
func (g gen) replacement() wire.Doc {
	d := g.document(wire.V(1))
	elems := d
	pairs := []any{}
	for _, e := range elementsOf(elems) {
		if e.name != "_id" && (e.name == "" || e.name[0] != '$') {
			pairs = append(pairs, e.name, e.value)
		}
	}
	return wire.D(pairs...)
}
