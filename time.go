package afterimage

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Time is a 64-bit commit time on the source's own clock. For MongoDB it is an oplog timestamp: seconds since the
// Unix epoch in the high 32 bits, the ordinal within the second in the low 32 bits.
type Time uint64

// MaxTime is later than every commit time.
const MaxTime Time = math.MaxUint64

// MongoTime makes the time of the MongoDB timestamp (seconds, ordinal).
func MongoTime(seconds, ordinal uint32) Time { return Time(seconds)<<32 | Time(ordinal) }

// Seconds returns the seconds part of a MongoDB time.
func (t Time) Seconds() uint32 { return uint32(t >> 32) }

// Ordinal returns the ordinal part of a MongoDB time.
func (t Time) Ordinal() uint32 { return uint32(t) }

// EndOfSecond returns the last time of the second that t lies in: a time given to the second includes all of it.
func (t Time) EndOfSecond() Time { return t | math.MaxUint32 }

// Clock returns the wall clock time of a MongoDB time, to the second.
func (t Time) Clock() time.Time { return time.Unix(int64(t.Seconds()), 0).UTC() }

// String prints a MongoDB time as seconds.ordinal, the form that the command line takes back.
func (t Time) String() string {
	return strconv.FormatUint(uint64(t.Seconds()), 10) + "." + strconv.FormatUint(uint64(t.Ordinal()), 10)
}

// Describe prints a MongoDB time for people: the wall clock, and the timestamp unless it is just the end of that second.
func (t Time) Describe() string {
	clock := t.Clock().Format("2006-01-02T15:04:05Z")
	if t == t.EndOfSecond() {
		return clock
	}
	return clock + " (" + t.String() + ")"
}

// MarshalText writes the form of [Time.String].
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the form of [Time.String].
func (t *Time) UnmarshalText(b []byte) error {
	v, err := ParseTime(string(b))
	if err != nil {
		return err
	}
	*t = v
	return nil
}

// ParseTime reads seconds.ordinal, both decimal and within 32 bits.
func ParseTime(s string) (Time, error) {
	sec, ord, ok := strings.Cut(s, ".")
	if !ok {
		return 0, fmt.Errorf("time %q: want SECONDS.ORDINAL, for example 1795252057.9", s)
	}
	a, err := strconv.ParseUint(sec, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("time %q: seconds: %w", s, err)
	}
	b, err := strconv.ParseUint(ord, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("time %q: ordinal: %w", s, err)
	}
	return MongoTime(uint32(a), uint32(b)), nil
}

// Position is a place in the log of one lane incarnation; positions of a lane are ordered. MongoDB keeps the entry's ts
// in Hi; Cassandra keeps the segment id in Hi and the offset in Lo.
type Position struct {
	Hi uint64 `json:"hi"`
	Lo uint64 `json:"lo,omitempty"`
}

// Less reports whether p lies before q.
func (p Position) Less(q Position) bool { return p.Hi < q.Hi || p.Hi == q.Hi && p.Lo < q.Lo }

// IsZero reports whether p is the zero position, before every entry.
func (p Position) IsZero() bool { return p == Position{} }

// String prints hi:lo.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Hi, p.Lo) }
