package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
)

// markKey is the metadata key of a write's mark.
const markKey = "afterimage-write"

// write is one Put or Create.
type write struct {
	request
	data        []byte
	mark        string
	ifNoneMatch *string // "*" for Create
}

func newWrite(verb, name string, data []byte) *write {
	return &write{request: request{verb, name, int64(len(data))}, data: data, mark: rand.Text()}
}

// Put implements [bucket.Bucket].
func (s *store) Put(ctx context.Context, name string, data []byte) error {
	return s.write(ctx, newWrite("put", name, data))
}

// Create implements [bucket.Bucket].
func (s *store) Create(ctx context.Context, name string, data []byte) error {
	w := newWrite("create", name, data)
	w.ifNoneMatch = aws.String("*")
	if err := s.write(ctx, w); err != nil {
		return err
	}
	return s.checkConditional(ctx, w)
}

// checkConditional creates the first object once more. A service that does not refuse that can't keep two writers apart:
// the truth would be overwritten in silence.
func (s *store) checkConditional(ctx context.Context, w *write) error {
	if s.conditional.Load() || len(w.data) > s.partBytes {
		return nil
	}
	err := s.attempt(ctx, w.request, func(ctx context.Context) error { return s.putObject(ctx, w) })
	switch status(err) {
	case http.StatusPreconditionFailed, http.StatusConflict:
		s.conditional.Store(true)
		return nil
	}
	if err == nil {
		err = fmt.Errorf("create %s in %s: the service ignores If-None-Match and would let two writers overwrite each other; "+
			"use one that honours it: %w", w.name, s, afterimage.ErrHalt)
	}
	return err
}

func (s *store) write(ctx context.Context, w *write) error {
	if err := bucket.CheckName(w.name); err != nil {
		return err
	}
	err := s.upload(ctx, w)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Taken (412), still contested after all attempts (409), or an upload that is finished already (404): either
	// somebody else's object is there, or ours, of an attempt whose answer was lost.
	if st := status(err); st != http.StatusPreconditionFailed && st != http.StatusConflict && code(err) != "NoSuchUpload" {
		return err
	}
	out, herr := s.headSoon(ctx, w)
	switch {
	case errors.Is(herr, bucket.ErrNotFound): // deleted in between
		return err
	case herr != nil:
		return errors.Join(err, herr)
	case out.Metadata[markKey] == w.mark:
		return nil
	case w.ifNoneMatch != nil:
		return fmt.Errorf("create %s in %s: %w", w.name, s, bucket.ErrExists)
	}
	return err
}

// How long the winner's object may take to be shown: 10 + 20 + ... + 640 ms.
const (
	shownTries = 7
	shownFirst = 10 * time.Millisecond
)

// headSoon looks at an object that must be there, or was a moment ago: a service may refuse the loser of a race before it
// shows the winner's object.
func (s *store) headSoon(ctx context.Context, w *write) (*s3.HeadObjectOutput, error) {
	for n := range shownTries {
		out, err := s.head(ctx, w.verb, w.name)
		if !errors.Is(err, bucket.ErrNotFound) {
			return out, err
		}
		if err := wait(ctx, shownFirst<<n); err != nil {
			return nil, err
		}
	}
	return s.head(ctx, w.verb, w.name)
}

func (s *store) upload(ctx context.Context, w *write) error {
	if len(w.data) > s.partBytes {
		return s.uploadParts(ctx, w)
	}
	return s.attempt(ctx, w.request, func(ctx context.Context) error { return s.putObject(ctx, w) })
}

func (s *store) putObject(ctx context.Context, w *write) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &w.name, Body: bytes.NewReader(w.data), ContentLength: aws.Int64(int64(len(w.data))),
		IfNoneMatch: w.ifNoneMatch, Metadata: map[string]string{markKey: w.mark},
	})
	return err
}

// uploadParts sends a large object in parts; it appears whole when the upload is completed. An upload that fails is
// aborted; what a crash leaves is for the bucket's own rule for unfinished uploads.
func (s *store) uploadParts(ctx context.Context, w *write) error {
	var id *string
	err := s.attempt(ctx, request{w.verb, w.name, 0}, func(ctx context.Context) error {
		out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: &s.bucket, Key: &w.name, Metadata: map[string]string{markKey: w.mark},
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		})
		if err == nil {
			id = out.UploadId
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.sendParts(ctx, w, id); err != nil {
		abort := context.WithoutCancel(ctx) // the caller may have given up; the parts cost money all the same
		return errors.Join(err, s.attempt(abort, request{"abort the upload of", w.name, 0}, func(ctx context.Context) error {
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &w.name, UploadId: id})
			if code(err) == "NoSuchUpload" {
				return nil
			}
			return err
		}))
	}
	return nil
}

func (s *store) sendParts(ctx context.Context, w *write, id *string) error {
	chunks := slices.Collect(slices.Chunk(w.data, s.partBytes))
	parts := make([]types.CompletedPart, len(chunks))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, chunk := range chunks {
		g.Go(func() error {
			number := aws.Int32(int32(i + 1))
			return s.attempt(gctx, request{w.verb, w.name, int64(len(chunk))}, func(ctx context.Context) error {
				out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
					Bucket: &s.bucket, Key: &w.name, UploadId: id, PartNumber: number,
					Body: bytes.NewReader(chunk), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
				})
				if err == nil {
					parts[i] = types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumCRC32: out.ChecksumCRC32}
				}
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.attempt(ctx, w.request, func(ctx context.Context) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.bucket, Key: &w.name, UploadId: id, IfNoneMatch: w.ifNoneMatch,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	})
}

// Delete implements [bucket.Bucket].
func (s *store) Delete(ctx context.Context, name string) error {
	if err := bucket.CheckName(name); err != nil {
		return err
	}
	return s.attempt(ctx, request{"delete", name, 0}, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &name})
		if code(err) == "NoSuchKey" {
			return nil
		}
		return err
	})
}
