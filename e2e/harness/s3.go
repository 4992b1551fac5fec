package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// S3Options say what StartS3 starts. The zero value is a server with one bucket named "afterimage".
type S3Options struct {
	Bucket     string // made at the start; default "afterimage"
	ObjectLock bool   // the bucket keeps versions and may lock them
	Dir        string // holds the data; default: a new temporary folder that Stop removes
}

// S3 is an S3 server on this machine. It keeps port and data when it is killed and started again.
type S3 struct {
	Endpoint  string // http://127.0.0.1:port
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string

	binary    string
	args      []string
	dir       string
	temporary bool
	proc      *process
}

// StartS3 starts a versitygw over a folder and makes the bucket. The caller calls Stop.
func StartS3(ctx context.Context, o S3Options) (*S3, error) {
	binary, err := VersityGW.Path()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	s := &S3{
		Endpoint: "http://" + addr(ports[0]), Region: "us-east-1", AccessKey: "afterimage", SecretKey: "afterimage-secret",
		Bucket: orDefault(o.Bucket, "afterimage"), binary: binary, dir: o.Dir,
	}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "afterimage-s3-"); err != nil {
			return nil, fmt.Errorf("harness: %w", err)
		}
		s.temporary = true
	}
	data, versions, meta := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "versions"), filepath.Join(s.dir, "meta")
	for _, d := range []string{data, versions, meta} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("harness: %w", err), s.Stop())
		}
	}
	// Metadata goes into files beside the data: not every file system of a temporary folder has extended attributes.
	s.args = []string{"--quiet", "--region", s.Region, "--port", addr(ports[0]), "posix", "--versioning-dir", versions, "--sidecar", meta, data}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	in := &s3.CreateBucketInput{Bucket: &s.Bucket, ObjectLockEnabledForBucket: &o.ObjectLock}
	if _, err := s.Client().CreateBucket(ctx, in); err != nil {
		return nil, errors.Join(fmt.Errorf("harness: create bucket %s: %w", s.Bucket, err), s.Stop())
	}
	return s, nil
}

// Start starts a server that does not run, and waits until it answers.
func (s *S3) Start(ctx context.Context) error {
	if s.proc.alive() {
		return fmt.Errorf("harness: %s runs already", s.Endpoint)
	}
	env := []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	p, err := startProcess(s.binary, s.args, env, s.LogPath())
	if err != nil {
		return err
	}
	s.proc = p
	err = poll(ctx, p, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close() // any answer will do
	})
	if err != nil {
		return fmt.Errorf("harness: S3 server %s does not come up: %w; its log ends:\n%s", s.Endpoint, err, logTail(s.LogPath()))
	}
	return nil
}

// Kill ends the server at once; Start brings it back with its data.
func (s *S3) Kill() error { return s.proc.kill() }

// LogPath is the server's log.
func (s *S3) LogPath() string { return filepath.Join(s.dir, "s3.log") }

// URL is the bucket, with a prefix, as the configuration wants it. The credentials are in Env.
func (s *S3) URL(prefix string) string {
	u := url.URL{Scheme: "s3", Host: s.Bucket, Path: "/" + prefix}
	u.RawQuery = url.Values{"endpoint": {s.Endpoint}, "region": {s.Region}}.Encode()
	return u.String()
}

// Env is what a process that reads URL needs in its environment.
func (s *S3) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey, "AWS_REGION=" + s.Region}
}

// Client is a new client of the server.
func (s *S3) Client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: s.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	})
}

// Stop kills the server and removes the data if the harness made the folder. It can be called twice.
func (s *S3) Stop() error {
	err := s.Kill()
	if s.temporary {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
