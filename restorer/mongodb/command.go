package mongodb

import (
	"strconv"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
)

// command is a BSON document in the making. Values go in as bytes, so nothing that a user stored is decoded.
type command []byte

func newCommand(name, value string) command {
	return command{0, 0, 0, 0}.str(name, value)
}

func newDocument() command { return command{0, 0, 0, 0} }

func (c command) str(name, v string) command { return bsoncore.AppendStringElement(c, name, v) }

func (c command) flag(name string, v bool) command { return bsoncore.AppendBooleanElement(c, name, v) }

func (c command) i32(name string, v int32) command { return bsoncore.AppendInt32Element(c, name, v) }

func (c command) i64(name string, v int64) command { return bsoncore.AppendInt64Element(c, name, v) }

func (c command) value(name string, typ byte, v []byte) command {
	c = append(c, typ)
	c = append(c, name...)
	c = append(c, 0)
	return append(c, v...)
}

func (c command) doc(name string, v []byte) command { return c.value(name, typeDocument, v) }

func (c command) array(name string, docs ...[]byte) command {
	a := newDocument()
	for i, d := range docs {
		a = a.doc(strconv.Itoa(i), d)
	}
	return c.value(name, typeArray, a.end())
}

// end closes the document.
func (c command) end() bson.Raw {
	c = append(c, 0)
	n := len(c)
	c[0], c[1], c[2], c[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	return bson.Raw(c)
}

// written adds a write concern: w:1 while loading, as the majority is waited for once, when the table is read back.
func (c command) written(concern string) command {
	w := newDocument()
	if concern == "majority" {
		w = w.str("w", concern)
	} else {
		w = w.i32("w", 1)
	}
	return c.doc("writeConcern", w.end())
}

// byID is a filter that finds one document whatever the type of its _id.
func byID(typ byte, id []byte) bson.Raw {
	return newDocument().doc("_id", newDocument().value("$eq", typ, id).end()).end()
}
