// Package open makes a bucket from its URL. It is apart from package bucket because it imports every implementation.
package open

import (
	"context"
	"strings"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
)

// Open opens file://PATH (PATH as the file system takes it, relative ones too).
// It touches no network. Errors never repeat the URL, which might hold a secret by mistake.
func Open(_ context.Context, url string) (bucket.Bucket, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	switch {
	case ok && scheme == "file" && rest != "":
		return bucket.NewFolder(rest)
	default:
		return nil, afterimage.Usagef("bucket: want file://FOLDER or s3://BUCKET/PREFIX?endpoint=...&region=...&path_style=true")
	}
}
