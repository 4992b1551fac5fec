package stream

import (
	"strings"

	"github.com/afterimagedb/afterimage"
)

// streamPrefix begins the name of every stream of ours.
const streamPrefix = "AFTERIMAGE"

// nameBytesMax keeps the names of streams, which are also names of directories, below 255 bytes.
const nameBytesMax = 100

// cleanName turns a name into letters, digits and dashes; every other byte becomes _XX, so that two names never meet
// and "__" never appears: it separates the parts of a stream name.
func cleanName(what, name string) (string, error) {
	if name == "" {
		return "", afterimage.Usagef("the name of a %s must not be empty", what)
	}
	const hexDigits = "0123456789ABCDEF"
	var s strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			s.WriteByte(c)
			continue
		}
		s.WriteByte('_')
		s.WriteByte(hexDigits[c>>4])
		s.WriteByte(hexDigits[c&15])
	}
	if s.Len() > nameBytesMax {
		return "", afterimage.Usagef("the name of %s %q is too long: at most %d letters, digits and dashes, or a third of that in other characters", what, name, nameBytesMax)
	}
	return s.String(), nil
}

// streamNames returns the stream and the subject of a lane.
func streamNames(source, lane string) (stream, subject string, err error) {
	s, err := cleanName("source", source)
	if err != nil {
		return "", "", err
	}
	l, err := cleanName("lane", lane)
	if err != nil {
		return "", "", err
	}
	return streamPrefix + "__" + s + "__" + l, subjectOf(s, l), nil
}

func subjectOf(source, lane string) string { return "afterimage." + source + "." + lane }
