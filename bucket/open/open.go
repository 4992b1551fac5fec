// Package open makes a bucket from its URL. It is apart from package bucket because it imports every implementation.
package open

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/s3"
)

// Open opens the bucket that a URL names:
//
//	file://PATH                                              PATH as the file system takes it, relative ones too
//	s3://BUCKET/PREFIX?endpoint=URL&region=R&path_style=true  credentials from the environment, see package s3
//
// path_style is true by default when there is an endpoint.
// It touches no network. Errors never repeat the URL, which might hold a secret by mistake.
func Open(ctx context.Context, rawURL string) (bucket.Bucket, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	switch {
	case scheme == "file" && rest != "":
		return bucket.NewFolder(rest)
	case scheme == "s3" && rest != "":
		o, err := s3Options(rawURL)
		if err != nil {
			return nil, err
		}
		return s3.Open(ctx, o)
	}
	return nil, afterimage.Usagef("bucket URL: want file://FOLDER or s3://BUCKET/PREFIX?endpoint=URL&region=NAME&path_style=true")
}

func s3Options(rawURL string) (s3.Options, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return s3.Options{}, afterimage.Usagef("bucket URL: it can't be read; percent-encode what is special in it")
	}
	if u.User != nil {
		return s3.Options{}, afterimage.Usagef("bucket URL: it holds a user name; give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return s3.Options{}, afterimage.Usagef("bucket URL: its query can't be read; percent-encode what is special in it")
	}
	// Services that are not Amazon's rarely answer to bucket names as host names.
	o := s3.Options{Bucket: u.Host, Prefix: u.Path, PathStyle: query.Has("endpoint")}
	for key, values := range query {
		value := values[len(values)-1]
		switch key {
		case "endpoint":
			o.Endpoint = value
		case "region":
			o.Region = value
		case "path_style":
			if o.PathStyle, err = strconv.ParseBool(value); err != nil {
				return s3.Options{}, afterimage.Usagef("bucket URL: path_style: want true or false")
			}
		default:
			return s3.Options{}, afterimage.Usagef("bucket URL: unknown key %q: want endpoint, region, path_style", key)
		}
	}
	return o, nil
}
