// Package s3 is a bucket in an S3 service: Amazon's, or another that honours If-None-Match on PutObject and
// CompleteMultipartUpload.
//
// # Invariants
//
//  1. Every attempt of every request ends within a bounded time, and there are attemptsMax of them.
//  2. Every write carries a random mark in its metadata. When the answer to a write was lost and the retry meets an
//     object, the mark says whose it is: a Create never answers ErrExists for its own object.
//  3. A service that ignores If-None-Match is found out at the first Create, which fails with ErrHalt.
//  4. Errors and names never hold credentials.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/afterimagedb/afterimage/bucket"
)

// Options says where the objects are.
type Options struct {
	Bucket    string // name of the S3 bucket
	Prefix    string // put before every name; a slash follows it
	Endpoint  string // URL of the service; empty for Amazon's of the region
	Region    string // empty: from the environment, else us-east-1
	PathStyle bool   // http://host/bucket/key instead of http://bucket.host/key: most services that are not Amazon's
}

// store is an S3 bucket with nothing in front of the names: [bucket.Sub] adds the prefix.
type store struct {
	client      *s3.Client
	bucket      string
	name        string // for people
	partBytes   int    // objects larger than this go up in parts of this size
	backoffBase time.Duration
	conditional atomic.Bool // the service was seen to honour If-None-Match
}

var _ bucket.Bucket = (*store)(nil)

// partBytes is far above S3's least part of 5 MB, and below it a whole object is one request.
const partBytes = 64 << 20

// Open returns the bucket. It makes no request: a wrong name or key shows at the first use. Credentials come from the
// default chain: environment, shared files, the machine's role.
func Open(ctx context.Context, o Options) (bucket.Bucket, error) {
	s, err := newStore(ctx, o)
	if err != nil {
		return nil, err
	}
	return bucket.Sub(s, o.Prefix), nil
}

func newStore(ctx context.Context, o Options) (*store, error) {
	if o.Bucket == "" {
		return nil, errors.New("s3: the bucket's name is missing: want s3://BUCKET/PREFIX")
	}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		if err := bucket.CheckName(p); err != nil {
			return nil, fmt.Errorf("s3 prefix: %w", err)
		}
	}
	host, err := endpointHost(o.Endpoint)
	if err != nil {
		return nil, err
	}
	conf, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(httpClient()),
		config.WithLogger(logging.Nop{}),                                   // it would write to standard error; what matters comes back as an error
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // attempt does it: bodies are read inside it
	)
	if err != nil {
		return nil, fmt.Errorf("s3: credentials and region from the environment: %w", err)
	}
	if o.Region != "" {
		conf.Region = o.Region
	}
	if conf.Region == "" {
		conf.Region = "us-east-1"
	}
	client := s3.NewFromConfig(conf, func(c *s3.Options) {
		c.UsePathStyle = o.PathStyle
		c.DisableLogOutputChecksumValidationSkipped = true // ranges and multipart objects have none to check; our formats do
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
	})
	name := "s3://" + o.Bucket
	if host != "" {
		name = "s3://" + host + "/" + o.Bucket
	}
	return &store{client: client, bucket: o.Bucket, name: name, partBytes: partBytes, backoffBase: 200 * time.Millisecond}, nil
}

// endpointHost checks the endpoint and returns its host and port.
func endpointHost(endpoint string) (string, error) {
	if endpoint == "" {
		return "", nil
	}
	u, err := url.Parse(endpoint)
	switch { // the text of the endpoint is not repeated: it may hold a password by mistake
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("s3: the endpoint is no URL: want http://HOST:PORT or https://HOST")
	case u.User != nil:
		return "", errors.New("s3: the endpoint holds a user name: give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("s3: the endpoint holds a query: want http://HOST:PORT or https://HOST")
	}
	return u.Host, nil
}

// httpClient gives up on a service that does not take the connection or does not begin to answer. Whole attempts are
// bounded by store.attempt.
func httpClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = 10 * time.Second
			t.ResponseHeaderTimeout = 30 * time.Second
			t.MaxIdleConnsPerHost = 32
		})
}

// String implements [bucket.Bucket].
func (s *store) String() string { return s.name }
