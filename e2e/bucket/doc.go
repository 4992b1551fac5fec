// Package bucket tests the buckets against a real S3 server. Its tests need the build tag e2e.
package bucket
