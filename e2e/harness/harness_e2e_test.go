//go:build e2e

package harness_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
)

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func collection(t *testing.T, rs *harness.ReplicaSet) *mongo.Collection {
	t.Helper()
	c, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c.Database("shop").Collection("orders", options.Collection().SetWriteConcern(writeconcern.Majority()))
}

// A set of three loses its primary to kill -9, chooses another, keeps what was acknowledged, and takes the lost member back.
func TestSetSurvivesItsPrimary(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	start := time.Now()
	rs := harnesstest.ReplicaSet(t, harness.Options{Members: 3})
	t.Logf("three members ready after %v", time.Since(start))
	orders := collection(t, rs)
	insert := func(id int) {
		t.Helper()
		if _, err := orders.InsertOne(ctx, bson.D{{Key: "_id", Value: id}}); err != nil {
			t.Fatal(err)
		}
	}
	insert(1)

	old := harnesstest.Primary(t, rs)
	start = time.Now()
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	if old.Alive() || old.PID() != 0 {
		t.Fatal("the primary lives after kill -9")
	}
	if now := harnesstest.Primary(t, rs); now == old {
		t.Fatal("the killed member is still primary")
	}
	t.Logf("another primary after %v", time.Since(start))
	insert(2)

	if err := old.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := rs.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Secondaries(ctx)); n != 2 {
		t.Fatalf("%d secondaries, want 2", n)
	}
	insert(3)
	if n, err := orders.CountDocuments(ctx, bson.D{}); err != nil || n != 3 {
		t.Fatalf("%d documents, %v; want 3", n, err)
	}
}

// The primary is stepped down, a member is frozen and thawed, and one is restarted; each leaves a set that works.
func TestMemberControl(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	rs := harnesstest.ReplicaSet(t, harness.Options{Members: 3})
	old := harnesstest.Primary(t, rs)
	now, err := rs.StepDown(ctx, 20*time.Second)
	if err != nil || now == old {
		t.Fatalf("step down: primary %v was %v, %v", now, old, err)
	}

	secondary := rs.Secondaries(ctx)[0]
	if err := secondary.Pause(); err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Secondaries(ctx)); n != 1 {
		t.Fatalf("%d secondaries answer with one paused, want 1", n)
	}
	if err := secondary.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := secondary.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := rs.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := secondary.Pause(); err != nil { // Stop must cope with a paused member
		t.Fatal(err)
	}
	dir := rs.Dir()
	if err := rs.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is left after Stop: %v", dir, err)
	}
}

func TestEveryVersion(t *testing.T) {
	for _, v := range []struct{ version, prints string }{{harness.Mongo60, "6.0."}, {harness.Mongo50, "5.0."}, {harness.Mongo44, "4.4."}} {
		t.Run(v.version, func(t *testing.T) {
			rs := harnesstest.ReplicaSet(t, harness.Options{Version: v.version})
			c, err := rs.Client()
			if err != nil {
				t.Fatal(err)
			}
			var info struct{ Version string }
			if err := c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(info.Version, v.prints) {
				t.Errorf("version %s, want %s", info.Version, v.prints)
			}
			if _, err := collection(t, rs).InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStandalone(t *testing.T) {
	rs := harnesstest.ReplicaSet(t, harness.Options{Standalone: true, TTLMonitorOff: true})
	if _, err := collection(t, rs).InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
		t.Fatal(err)
	}
}

func TestMissingBinarySaysWhatToDo(t *testing.T) {
	t.Setenv("AFTERIMAGE_MONGOD", filepath.Join(t.TempDir(), "mongod"))
	_, err := harness.StartReplicaSet(t.Context(), harness.Options{})
	if !errors.Is(err, harness.ErrMissing) || !strings.Contains(err.Error(), "run: make deps") {
		t.Fatalf("error %v", err)
	}
}

// TestChildrenDieWithTheParent kills this test's own binary, run again as a parent, and sees its mongod go.
func TestChildrenDieWithTheParent(t *testing.T) {
	if pidFile := os.Getenv("HARNESS_TEST_PARENT"); pidFile != "" {
		rs, err := harness.StartReplicaSet(t.Context(), harness.Options{Dir: filepath.Dir(pidFile), Standalone: true})
		if err != nil {
			t.Fatal(err)
		}
		uri := rs.Members[0].URI()
		if err := os.WriteFile(pidFile+".tmp", []byte(uri), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(pidFile+".tmp", pidFile); err != nil {
			t.Fatal(err)
		}
		<-t.Context().Done()
		return
	}
	ctx := deadline(t, time.Minute)
	file := filepath.Join(t.TempDir(), "uri")
	parent := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestChildrenDieWithTheParent$")
	parent.Env = append(os.Environ(), "HARNESS_TEST_PARENT="+file)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var uri []byte
	eventually(t, ctx, "the parent starts a mongod", func() (err error) {
		uri, err = os.ReadFile(file)
		return err
	})
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(string(uri)).SetServerSelectionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(ctx) }()
	var status struct{ PID int }
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "serverStatus", Value: 1}}).Decode(&status); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as it was told
	eventually(t, ctx, "the mongod dies", func() error {
		if err := syscall.Kill(status.PID, 0); !errors.Is(err, syscall.ESRCH) && !zombie(status.PID) {
			return errors.New("it lives")
		}
		return nil
	})
}

// zombie says whether a process has ended and waits for its parent: in a container nobody may reap it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, ctx context.Context, what string, f func() error) { //nolint:revive // t comes first
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// The server keeps its objects over kill -9, and refuses to create what is there.
func TestS3(t *testing.T) {
	ctx := deadline(t, time.Minute)
	start := time.Now()
	server := harnesstest.S3(t, harness.S3Options{ObjectLock: true})
	t.Logf("S3 ready after %v at %s", time.Since(start), server.URL("prefix"))
	put := func() error {
		key, none := "a/b", "*"
		_, err := server.Client().PutObject(ctx, &s3.PutObjectInput{Bucket: &server.Bucket, Key: &key, Body: strings.NewReader("x"), IfNoneMatch: &none})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := put(); err == nil || !strings.Contains(err.Error(), "PreconditionFailed") {
		t.Fatalf("second create: %v, want PreconditionFailed", err)
	}
}

// The judge finds no difference between a server and itself, and finds the one that is made.
func TestJudge(t *testing.T) {
	judge := harnesstest.Judge(t)
	ctx := deadline(t, 2*time.Minute)
	rs := harnesstest.ReplicaSet(t, harness.Options{})
	orders := collection(t, rs)
	if _, err := orders.InsertMany(ctx, []any{bson.D{{Key: "_id", Value: 1}}, bson.D{{Key: "_id", Value: 2}}}); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(t.TempDir(), "record.jsonl")
	first, err := judge.RecordTruth(ctx, rs.URI(), primitive.Timestamp{}, record)
	if err != nil {
		t.Fatal(err)
	}
	if first.N != 0 || first.T.IsZero() || first.Documents != 2 {
		t.Fatalf("checkpoint %+v", first)
	}
	if diffs, ok, err := judge.Verify(ctx, rs.URI(), record, first.String()); err != nil || !ok {
		t.Fatalf("untouched: %v %v\n%s", ok, err, diffs)
	}
	if _, err := orders.UpdateByID(ctx, 2, bson.D{{Key: "$set", Value: bson.D{{Key: "a", Value: 1}}}}); err != nil {
		t.Fatal(err)
	}
	diffs, ok, err := judge.Verify(ctx, rs.URI(), record, first.String())
	if err != nil || ok || !strings.Contains(diffs, "1 differences") {
		t.Fatalf("one field more: %v %v\n%s", ok, err, diffs)
	}
	// A snapshot at the first time still shows the first state.
	again, err := judge.RecordTruth(ctx, rs.URI(), first.T, record)
	if err != nil || again.N != 1 || again.T != first.T {
		t.Fatalf("second checkpoint %+v, %v", again, err)
	}
	if diffs, ok, err := judge.Verify(ctx, rs.URI(), record, again.String()); err != nil || ok {
		t.Fatalf("against the snapshot: %v %v\n%s", ok, err, diffs)
	}
	if _, _, err := judge.Verify(ctx, rs.URI(), record, "7"); err == nil {
		t.Fatal("no error for a checkpoint that is not there")
	}
}
