// Package harnesstest ties the programs of package harness to a test: started with it, stopped at its end, their failure the
// test's.
package harnesstest

import (
	"errors"
	"os"
	"testing"

	"github.com/afterimagedb/afterimage/e2e/harness"
)

// ReplicaSet starts a set that lives as long as the test. A missing binary fails the test.
func ReplicaSet(t testing.TB, o harness.Options) *harness.ReplicaSet {
	t.Helper()
	rs, err := harness.StartReplicaSet(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, rs.Stop)
	return rs
}

// Target starts an empty one-member set of a version ("" is 6.0) to restore into; its TTL monitor is off, so that it can be compared.
func Target(t testing.TB, version string) *harness.ReplicaSet {
	t.Helper()
	return ReplicaSet(t, harness.Options{Version: version, Name: "target", TTLMonitorOff: true})
}

// S3 starts an S3 server that lives as long as the test, and puts its credentials into the test's environment.
func S3(t *testing.T, o harness.S3Options) *harness.S3 {
	t.Helper()
	s, err := harness.StartS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, s.Stop)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	t.Setenv("AWS_REGION", s.Region)
	return s
}

// Judge returns the judge of restores. Where its folder is not there the test is skipped, unless AFTERIMAGE_SHARED says that it must
// be: .ci/run says so.
func Judge(t testing.TB) *harness.Judge {
	t.Helper()
	j, err := harness.NewJudge()
	if errors.Is(err, harness.ErrNoJudge) && os.Getenv("AFTERIMAGE_SHARED") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// Primary waits for the set's primary, as long as the test may.
func Primary(t testing.TB, rs *harness.ReplicaSet) *harness.Member {
	t.Helper()
	m, err := rs.WaitPrimary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func cleanup(t testing.TB, stop func() error) {
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
