package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/afterimagedb/afterimage/bucket"
)

const (
	attemptsMax    = 6
	backoffMax     = 5 * time.Second
	attemptTimeout = 30 * time.Second // for a request without a body
	bytesPerSecMin = 1 << 20          // slower transfers are given up
	bytesUnknown   = 5 << 30          // the largest object that one request can move
)

// timeAllowed is how long an attempt that moves n bytes may take.
func timeAllowed(n int64) time.Duration {
	return attemptTimeout + time.Duration(n/bytesPerSecMin)*time.Second
}

// request is one operation with its retries.
type request struct {
	verb  string // for people: "put", "read", ...
	name  string
	bytes int64 // how much is moved, for the time allowed
}

// attempt runs do until it succeeds, fails for good or attemptsMax is reached. do must be harmless when repeated. The
// error names the object and the store.
func (s *store) attempt(ctx context.Context, r request, do func(context.Context) error) error {
	var err error
	for n := range attemptsMax {
		if n > 0 {
			if werr := wait(ctx, s.backoff(n)); werr != nil {
				return s.wrap(r, werr, err)
			}
		}
		if err = ctx.Err(); err != nil {
			return s.wrap(r, err, nil)
		}
		actx, cancel := context.WithTimeout(ctx, timeAllowed(r.bytes))
		err = do(actx)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return s.wrap(r, ctx.Err(), err)
		case !transient(err):
			return s.wrap(r, err, nil)
		}
	}
	return s.wrap(r, fmt.Errorf("gave up after %d attempts: %w", attemptsMax, err), nil)
}

// backoff is between half and the whole of a doubling time.
func (s *store) backoff(n int) time.Duration {
	d := min(s.backoffBase<<(n-1), backoffMax)
	return d/2 + rand.N(d/2+1)
}

// wait returns early, with the context's error, when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// standard knows the codes and transport errors that S3 clients retry.
var standard = retry.NewStandard()

// transient tells errors that may pass from those that won't.
func transient(err error) bool {
	switch {
	case errors.Is(err, bucket.ErrNotFound), errors.Is(err, bucket.ErrExists), errors.Is(err, errPermanent):
		return false
	case errors.Is(err, errTorn), errors.Is(err, context.DeadlineExceeded):
		return true
	case status(err) == http.StatusConflict: // another conditional write was under way: S3 asks to try again
		return true
	}
	return standard.IsErrorRetryable(err)
}

var (
	errPermanent = errors.New("refused")             // our own checks: the same again would fail again
	errTorn      = errors.New("the transfer failed") // in the middle of an answer's body
)

// status is the HTTP status of an answer, 0 if there was none.
func status(err error) int {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil {
		return re.HTTPStatusCode()
	}
	return 0
}

// code is the error code of an answer, "" if there was none.
func code(err error) string {
	if ae, ok := errors.AsType[smithy.APIError](err); ok {
		return ae.ErrorCode()
	}
	return ""
}

// wrap names the object and the store. before is what the last attempt said when waiting for the next one was ended.
func (s *store) wrap(r request, err, before error) error {
	hint := ""
	switch code(err) {
	case "NoSuchBucket":
		hint = " (make the bucket, or correct its name and region)"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden", "ExpiredToken":
		hint = " (check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy)"
	}
	if before != nil {
		return fmt.Errorf("%s %s in %s: %w (last: %w)", r.verb, r.name, s, err, before)
	}
	return fmt.Errorf("%s %s in %s: %w%s", r.verb, r.name, s, err, hint)
}

// notFound turns "no such key" into ErrNotFound; a missing bucket is something else.
func notFound(err error) error {
	if code(err) == "NoSuchKey" {
		return bucket.ErrNotFound
	}
	return err
}
