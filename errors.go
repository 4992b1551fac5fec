package afterimage

import (
	"errors"
	"fmt"
)

// NotRecoverableError says that the time asked for can't be restored exactly, and which nearby times can.
// The command line maps it to exit code 3.
type NotRecoverableError struct {
	At     Time
	Reason string // what stands in the way, in a clause: "lies in a gap of lane rs0 (oplog rolled over)"
	Later  bool   // true when waiting helps: the horizon has not reached At yet
	Before Time   // nearest good time before At, 0 if none
	After  Time   // nearest good time after At, 0 if none
}

// Error says what, why and what to do.
func (e *NotRecoverableError) Error() string {
	yet := ""
	if e.Later {
		yet = " yet"
	}
	s := fmt.Sprintf("time %s is not recoverable%s: %s", e.At.Describe(), yet, e.Reason)
	if e.Before != 0 {
		s += "; nearest good time before: " + e.Before.Describe()
	}
	if e.After != 0 {
		s += "; nearest good time after: " + e.After.Describe()
	}
	return s
}

// UsageError marks a mistake in a command, a configuration or another input; the command line maps it to exit code 2.
type UsageError struct{ Err error }

// Error returns the text of the cause.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a [UsageError].
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// ErrHalt marks an error that retrying can't mend: the stage stops and says so. Errors without it are retried.
var ErrHalt = errors.New("halted")

// ErrFenced means that another listener of the lane published first: read the lane's last batch and go on from its end.
var ErrFenced = errors.New("another listener published to this lane first")
