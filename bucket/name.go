package bucket

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// nameBytesMax is S3's limit for a whole key; a prefix in front of ours must fit too.
const nameBytesMax = 900

// errName is the cause of every refused name.
var errName = errors.New("bad object name")

// CheckName refuses what not every store could hold, or what would lead out of a folder: empty names and elements,
// elements that begin with a dot, a slash at either end, control characters and backslashes. Implementations call it
// before they touch anything.
func CheckName(name string) error {
	if name == "" || len(name) > nameBytesMax {
		return fmt.Errorf("%w %.80q: want 1 to %d bytes", errName, name, nameBytesMax)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element[0] == '.' {
			return fmt.Errorf("%w %q: elements between slashes are not empty and do not begin with a dot", errName, name)
		}
		if len(element) > 255 {
			return fmt.Errorf("%w %.80q: an element is longer than 255 bytes", errName, name)
		}
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' }); i >= 0 {
		return fmt.Errorf("%w %q: want printable UTF-8 without backslashes", errName, name)
	}
	return nil
}

// CheckRange refuses negative ranges and those that do not lie within size bytes.
func CheckRange(offset, length, size int64) error {
	if offset < 0 || length < 0 || offset > size || length > size-offset {
		return fmt.Errorf("range of %d bytes at %d is not within its %d bytes", length, offset, size)
	}
	return nil
}

// sortedAfter returns those of the names that a listing of (prefix, after) holds, in order.
func sortedAfter(names []string, prefix, after string) []string {
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) || n <= after })
	slices.Sort(names)
	return names
}
