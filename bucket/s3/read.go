package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/afterimagedb/afterimage/bucket"
)

// Get implements [bucket.Bucket].
func (s *store) Get(ctx context.Context, name string) ([]byte, error) {
	if err := bucket.CheckName(name); err != nil {
		return nil, err
	}
	var data []byte
	err := s.attempt(ctx, request{"read", name, bytesUnknown}, func(ctx context.Context) error {
		rctx, cancel := context.WithCancel(ctx)
		defer cancel()
		out, err := s.client.GetObject(rctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &name})
		if err != nil {
			return notFound(err)
		}
		size := aws.ToInt64(out.ContentLength)
		defer time.AfterFunc(timeAllowed(size), cancel).Stop() // only now it is known how long this may take
		data, err = body(out.Body, size)
		return err
	})
	return data, err
}

// GetRange implements [bucket.Bucket].
func (s *store) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := bucket.CheckName(name); err != nil {
		return nil, err
	}
	if err := bucket.CheckRange(offset, length, math.MaxInt64); err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", name, s, err)
	}
	if length == 0 {
		size, err := s.Size(ctx, name)
		if err == nil {
			err = bucket.CheckRange(offset, length, size)
		}
		return []byte{}, err
	}
	var data []byte
	err := s.attempt(ctx, request{"read", name, length}, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
			Bucket: &s.bucket, Key: &name, Range: aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)),
		}, noChecksum)
		if status(err) == http.StatusRequestedRangeNotSatisfiable || code(err) == "InvalidRange" {
			return fmt.Errorf("%w: the range of %d bytes at %d lies past its end", errPermanent, length, offset)
		}
		if err != nil {
			return notFound(err)
		}
		have := aws.ToInt64(out.ContentLength)
		if want := fmt.Sprintf("bytes %d-%d/", offset, offset+length-1); have != length || !strings.HasPrefix(aws.ToString(out.ContentRange), want) {
			out.Body.Close()
			return fmt.Errorf("%w: asked for %d bytes at %d, answered %d bytes (%s)", errPermanent, length, offset, have, aws.ToString(out.ContentRange))
		}
		data, err = body(out.Body, have)
		return err
	})
	return data, err
}

// noChecksum is for ranges: the checksum of an object says nothing about a part of it, yet some services send it.
func noChecksum(o *s3.Options) {
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

// body reads n bytes and the end: it is the end that checks the checksum. Whatever goes wrong here, the transfer may
// be better the next time.
func body(r io.ReadCloser, n int64) ([]byte, error) {
	defer r.Close()
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%w: %w", errTorn, err)
	}
	if more, err := io.Copy(io.Discard, r); err != nil || more > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many, %w", errTorn, more, err)
	}
	return data, nil
}

// Size implements [bucket.Bucket].
func (s *store) Size(ctx context.Context, name string) (int64, error) {
	out, err := s.head(ctx, "size of", name)
	if err != nil {
		return 0, err
	}
	return aws.ToInt64(out.ContentLength), nil
}

// head reads an object's headers. The answer to HEAD has no body, so a missing bucket looks like a missing object:
// there the bucket is asked for too.
func (s *store) head(ctx context.Context, verb, name string) (*s3.HeadObjectOutput, error) {
	if err := bucket.CheckName(name); err != nil {
		return nil, err
	}
	var out *s3.HeadObjectOutput
	err := s.attempt(ctx, request{verb, name, 0}, func(ctx context.Context) (err error) {
		out, err = s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &name})
		if status(err) != http.StatusNotFound {
			return err
		}
		if _, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket}); status(err) == http.StatusNotFound {
			return fmt.Errorf("%w: there is no such bucket: make it, or correct its name and region", errPermanent)
		}
		return bucket.ErrNotFound
	})
	return out, err
}

// List implements [bucket.Bucket].
func (s *store) List(ctx context.Context, prefix, after string, fn func(bucket.Info) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket}
	if prefix != "" {
		in.Prefix = &prefix
	}
	if after != "" {
		in.StartAfter = &after
	}
	for {
		var page *s3.ListObjectsV2Output
		err := s.attempt(ctx, request{"list", prefix, 0}, func(ctx context.Context) (err error) {
			page, err = s.client.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			name := aws.ToString(o.Key)
			if name <= after || bucket.CheckName(name) != nil {
				continue // not ours, such as the markers of folders that some tools make
			}
			if err := fn(bucket.Info{Name: name, Size: aws.ToInt64(o.Size)}); errors.Is(err, bucket.SkipAll) {
				return nil
			} else if err != nil {
				return err
			}
			after = name
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		if page.NextContinuationToken == nil {
			return fmt.Errorf("list %s in %s: the service said that there is more, but not where", prefix, s)
		}
		in.ContinuationToken = page.NextContinuationToken
	}
}
