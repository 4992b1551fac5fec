package main

import (
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/snapshotter"
)

// documentText is a document as canonical extended JSON; empty for none. What the library can't print is shown in hex.
func documentText(body []byte) string {
	if len(body) == 0 {
		return ""
	}
	text, err := bson.MarshalExtJSON(bson.Raw(body), true, false)
	if err != nil {
		return bson.Raw(body).String()
	}
	return string(text)
}

// documentVersion is one version of a document for people and for JSON.
type documentVersion struct {
	Time     afterimage.Time `json:"time"`
	When     string          `json:"when"`
	Op       string          `json:"op"`
	Changed  string          `json:"changed,omitempty"`
	Exists   bool            `json:"exists"`
	Document string          `json:"document,omitempty"` // canonical extended JSON
}

func versionsOf(in []snapshotter.Version) []documentVersion {
	out := make([]documentVersion, 0, len(in))
	for i := range in {
		v := &in[i]
		x := documentVersion{Time: v.Time, When: when(v.Time), Op: v.Op.String(), Changed: strings.Join(v.Fields, ","), Exists: v.Exists, Document: documentText(v.Body)}
		switch {
		case v.Since:
			x.Op = "known since"
			if !v.Exists {
				x.Op = "absent since"
			}
		case !v.Known:
			x.Op += " (base not known)"
		}
		out = append(out, x)
	}
	return out
}

// difference is one document that differs between two times.
type difference struct {
	Kind    string `json:"kind"` // inserted, deleted, changed
	ID      string `json:"id"`
	Changed string `json:"changed,omitempty"`
	Before  string `json:"before,omitempty"`
	After   string `json:"after,omitempty"`
}

func differenceOf(d dialect.Dialect, before, after []byte) difference {
	x := difference{Kind: "changed", Before: documentText(before), After: documentText(after), ID: d.FormatKey(after)}
	switch {
	case len(before) == 0:
		x.Kind = "inserted"
	case len(after) == 0:
		x.Kind, x.ID = "deleted", d.FormatKey(before)
	default:
		if n, ok := d.(snapshotter.FieldNamer); ok {
			x.Changed = strings.Join(n.ChangedFields(before, after), ",")
		}
	}
	return x
}
