package segment

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// NewID returns a name for a new segment: the wall clock in milliseconds (12 hex digits, so that names sort by age) and
// 80 random bits, lower-case and safe in file names of every system.
func NewID() string {
	return fmt.Sprintf("%012x-%s", time.Now().UnixMilli(), strings.ToLower(rand.Text()[:16]))
}
