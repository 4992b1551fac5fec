package mongodb

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/restorer"
)

// The ways to mask a field.
const (
	MaskNull     = "null"     // the field becomes null
	MaskHash     = "hash"     // the field becomes 32 hexadecimal digits: equal values stay equal, nothing else is kept
	MaskConstant = "constant" // the field becomes Mask.Value
)

// Mask hides a field of the documents that are restored. Documents without the field are left as they are.
type Mask struct {
	Namespace string        // pattern, matched against the namespace at T
	Path      string        // names with dots between; arrays are passed through
	How       string        // MaskNull, MaskHash or MaskConstant
	Salt      string        `json:"-"` // of MaskHash: without a secret one, guesses can be checked
	Value     bson.RawValue // of MaskConstant
}

// ParseMask reads NAMESPACE:PATH=null, NAMESPACE:PATH=hash or NAMESPACE:PATH=constant:EXTENDED-JSON.
func ParseMask(s string) (Mask, error) {
	ns, rest, ok := strings.Cut(s, ":")
	path, how, ok2 := strings.Cut(rest, "=")
	how, value, constant := strings.Cut(how, ":")
	m := Mask{Namespace: ns, Path: path, How: how}
	if !ok || !ok2 || ns == "" || path == "" || constant != (how == MaskConstant) {
		return m, afterimage.Usagef("mask %q: want NAMESPACE:FIELD=null, =hash or =constant:VALUE, for example shop.customers:email=hash", s)
	}
	if constant {
		var doc bson.Raw
		if err := bson.UnmarshalExtJSON([]byte(`{"v":`+value+`}`), false, &doc); err != nil {
			return m, afterimage.Usagef("mask %q: %q is no extended JSON: %v", s, value, err)
		}
		m.Value = doc.Lookup("v")
	}
	return m, m.check()
}

func (m Mask) check() error {
	switch m.How {
	case MaskNull, MaskHash:
	case MaskConstant:
		if err := m.Value.Validate(); err != nil {
			return afterimage.Usagef("mask of %s: no value: %v", m.Path, err)
		}
	default:
		return afterimage.Usagef("mask of %s: %q: want null, hash or constant", m.Path, m.How)
	}
	if m.Path == "_id" || strings.HasPrefix(m.Path, "_id.") {
		return afterimage.Usagef("mask of %s: _id is the identity of a document and can't be masked", m.Path)
	}
	return nil
}

type masks []maskPath

type maskPath struct {
	Mask
	path []string
}

func chooseMasks(list []Mask, ns string) masks {
	var out masks
	for _, m := range list {
		if restorer.MatchNamespace(m.Namespace, ns) {
			out = append(out, maskPath{m, strings.Split(m.Path, ".")})
		}
	}
	return out
}

// apply returns doc with its fields masked; it is doc itself when there is nothing to mask, else it lives in *buf.
func (m masks) apply(buf *[]byte, doc []byte) ([]byte, error) {
	for i := range m {
		out, err := m[i].document((*buf)[:0], doc, m[i].path)
		if err != nil {
			return nil, fmt.Errorf("mask %s of document %s: %w", m[i].Path, idText(doc), err)
		}
		*buf = out
		if i+1 < len(m) {
			out = append([]byte(nil), out...) // the next mask reads it while it writes buf
		}
		doc = out
	}
	return doc, nil
}

// document appends doc, a document or array, with what path names masked.
func (m *maskPath) document(dst, doc []byte, path []string) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var inner error
	err := walk(doc, func(e element) bool {
		if string(e.name) == path[0] {
			dst, inner = m.element(dst, doc, e, path[1:])
		} else {
			dst = append(dst, doc[e.at:e.end]...)
		}
		return inner == nil
	})
	if err == nil {
		err = inner
	}
	return closeDocument(dst, start), err
}

// element appends one element whose name the path led to; rest is what follows it.
func (m *maskPath) element(dst, doc []byte, e element, rest []string) ([]byte, error) {
	value := doc[e.value:e.end]
	switch {
	case len(rest) == 0:
		return m.masked(dst, e, value), nil
	case e.typ == typeDocument:
		return m.document(append(dst, doc[e.at:e.value]...), value, rest)
	case e.typ == typeArray:
		return m.array(append(dst, doc[e.at:e.value]...), value, rest)
	}
	return append(dst, doc[e.at:e.end]...), nil
}

// array masks in each document of an array, arrays in it included, and in the element that the path names by its place:
// where a path can be read in two ways, both are masked.
func (m *maskPath) array(dst, arr []byte, path []string) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var inner error
	err := walk(arr, func(e element) bool {
		switch {
		case string(e.name) == path[0]:
			dst, inner = m.element(dst, arr, e, path[1:])
		case e.typ == typeDocument:
			dst, inner = m.document(append(dst, arr[e.at:e.value]...), arr[e.value:e.end], path)
		case e.typ == typeArray:
			dst, inner = m.array(append(dst, arr[e.at:e.value]...), arr[e.value:e.end], path)
		default:
			dst = append(dst, arr[e.at:e.end]...)
		}
		return inner == nil
	})
	if err == nil {
		err = inner
	}
	return closeDocument(dst, start), err
}

func (m *maskPath) masked(dst []byte, e element, value []byte) []byte {
	typ, v := byte(0x0A), []byte(nil)
	switch m.How {
	case MaskHash:
		h := hmac.New(sha256.New, []byte(m.Salt))
		h.Write([]byte{e.typ})
		h.Write(value)
		typ, v = typeString, append([]byte{33, 0, 0, 0}, hex.EncodeToString(h.Sum(nil)[:16])...)
		v = append(v, 0)
	case MaskConstant:
		typ, v = byte(m.Value.Type), m.Value.Value
	}
	dst = append(append(append(dst, typ), e.name...), 0)
	return append(dst, v...)
}

// closeDocument ends the document that began at start.
func closeDocument(dst []byte, start int) []byte {
	dst = append(dst, 0)
	n := len(dst) - start
	dst[start], dst[start+1], dst[start+2], dst[start+3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	return dst
}
