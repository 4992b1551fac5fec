package open

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/afterimagedb/afterimage"
)

func TestOpen(t *testing.T) {
	t.Chdir(t.TempDir())
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for url, want := range map[string]string{
		"file://./data/bucket":    "file://" + cwd + "/data/bucket",
		"file://" + cwd + "/a b%": "file://" + cwd + "/a b%",
		"s3://backups":            "s3://backups",
		"s3://backups/a/b/":       "s3://backups/a/b",
		"s3://b/p?endpoint=http%3A%2F%2F127.0.0.1%3A7070&region=eu-1&path_style=true": "s3://127.0.0.1:7070/b/p",
		"s3://b?endpoint=http://127.0.0.1:7070&path_style=1":                          "s3://127.0.0.1:7070/b",
	} {
		b, err := Open(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
		} else if b.String() != want {
			t.Errorf("%s: opened %s, want %s", url, b, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, url := range []string{
		"", "file://", "s3://", "/data/bucket", "http://host/" + secret, "gs://b/" + secret,
		"s3://user:" + secret + "@b/p", "s3://b/%zz" + secret, "s3://b?secret_key=" + secret, "s3://b?path_style=" + secret,
		"s3://b?region=a;b=" + secret,
	} {
		_, err := Open(t.Context(), url)
		if u := new(afterimage.UsageError); !errors.As(err, &u) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want a usage error without the secret", url, err)
		}
	}
	for _, url := range []string{"s3:///p", "s3://b?endpoint=" + secret, "s3://b?endpoint=http://u:" + secret + "@h"} {
		if _, err := Open(t.Context(), url); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want it refused without the secret", url, err)
		}
	}
}
