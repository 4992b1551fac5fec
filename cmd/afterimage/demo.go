package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/restorer"
)

type demoCmd struct {
	Dir  string `default:"afterimage-demo" help:"Folder for the demo: replaced at each run." type:"path"`
	Keep bool   `help:"Leave the database running at the end, until Ctrl-C."`
}

// Sizes of the demo's data.
const (
	demoCustomers = 5000
	demoOrders    = 20000
	demoDamaged   = 40
)

// demo is one run of the tour.
type demo struct {
	a      *app
	dir    string
	config string
	set    *harness.ReplicaSet
	shop   *mongo.Database
	stop   context.CancelFunc
	served chan error
}

// Run plays the tour: a real replica set, protected, damaged, restored.
func (c *demoCmd) Run(a *app) error {
	d := &demo{a: a, dir: c.Dir, config: filepath.Join(c.Dir, "afterimage.yaml")}
	if err := d.prepare(); err != nil {
		return err
	}
	d.say("Starting a MongoDB replica set of three members on this machine.")
	set, err := harness.StartReplicaSet(a.ctx, harness.Options{Members: 3, Name: "demo"})
	if err != nil {
		return err
	}
	d.set = set
	defer set.Stop() //nolint:errcheck // the demo ends, its temporary folder with it
	defer d.unserve()
	for _, step := range []func() error{d.load, d.protect, d.mistakes, d.collectionBack, d.documentsBack} {
		if err := step(); err != nil {
			return err
		}
	}
	d.farewell()
	if c.Keep {
		d.say("The database runs at %s until Ctrl-C.", set.URI())
		<-a.ctx.Done()
	}
	return nil
}

func (d *demo) prepare() error {
	if _, err := os.Stat(d.dir); err == nil {
		if _, err := os.Stat(d.config); err != nil {
			return afterimage.Usagef("%s exists and is not from a demo: give another folder with --dir", d.dir)
		}
		if err := os.RemoveAll(d.dir); err != nil {
			return err
		}
	}
	return os.MkdirAll(d.dir, 0o750)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.a.stdout, "\n# "+format+"\n", args...)
}

// load fills the shop.
func (d *demo) load() error {
	cl, err := d.set.Client()
	if err != nil {
		return err
	}
	d.shop = cl.Database("shop", options.Database().SetWriteConcern(writeconcern.Majority()))
	d.say("Filling shop.customers (%d documents) and shop.orders (%d documents).", demoCustomers, demoOrders)
	r := rand.New(rand.NewPCG(1, 1))
	for name, n := range map[string]int{"customers": demoCustomers, "orders": demoOrders} {
		var docs []any
		for i := range n {
			docs = append(docs, bson.D{
				{Key: "_id", Value: i},
				{Key: "name", Value: fmt.Sprintf("%s %d", strings.TrimSuffix(name, "s"), i)},
				{Key: "total", Value: r.Float64() * 500},
				{Key: "at", Value: time.Now()},
				{Key: "note", Value: strings.Repeat("x", 200)},
			})
		}
		if _, err := d.shop.Collection(name).InsertMany(d.a.ctx, docs, options.InsertMany().SetOrdered(false)); err != nil {
			return err
		}
	}
	_, err = d.shop.Collection("customers").Indexes().CreateOne(d.a.ctx, mongo.IndexModel{Keys: bson.D{{Key: "name", Value: 1}}, Options: options.Index().SetUnique(true)})
	return err
}

// protect starts `afterimage serve` in this process and waits for the first image, while a writer goes on.
func (d *demo) protect() error {
	text := fmt.Sprintf("data_dir: %s\nhttp: 127.0.0.1:0\nsources:\n  - name: shop\n    mongodb: { uri: %q }\n", filepath.Join(d.dir, "data"), d.set.URI())
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		return err
	}
	d.say("Protecting it: this is all the configuration there is (%s).", d.config)
	fmt.Fprint(d.a.stdout, text)
	ctx, cancel := context.WithCancel(d.a.ctx)
	d.stop, d.served = cancel, make(chan error, 1)
	logs, err := os.Create(filepath.Join(d.dir, "serve.log"))
	if err != nil {
		return err
	}
	go func() {
		defer logs.Close()
		if code := run(ctx, []string{"--config", d.config, "serve"}, logs, logs); code != 0 {
			d.served <- fmt.Errorf("afterimage serve ended with code %d: see %s", code, logs.Name())
			return
		}
		d.served <- nil
	}()
	began := time.Now()
	go d.write(ctx)
	err = d.await("the first image", func(st *sourceStatus) bool { return st.State == "protecting" && len(st.Windows) > 0 })
	if err != nil {
		return err
	}
	d.say("Protected %.1f s after the start. From now on every moment can be restored.", time.Since(began).Seconds())
	return d.show("status", "shop")
}

// write changes orders until ctx ends: the demo restores under load.
func (d *demo) write(ctx context.Context) {
	r := rand.New(rand.NewPCG(2, 2))
	for ctx.Err() == nil {
		_, _ = d.shop.Collection("orders").UpdateByID(ctx, demoDamaged+r.IntN(demoOrders-demoDamaged), bson.M{"$inc": bson.M{"rev": 1}})
	}
}

func (d *demo) unserve() {
	if d.stop != nil {
		d.stop()
		if err := <-d.served; err != nil {
			d.a.log.Warn("the service ended", "error", err)
		}
	}
}

// await polls the status until it is as wanted.
func (d *demo) await(what string, ok func(*sourceStatus) bool) error {
	ctx, cancel := context.WithTimeout(d.a.ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-d.served:
			d.served <- nil
			return errors.Join(errors.New("the service ended"), err)
		case <-ctx.Done():
			return fmt.Errorf("%s did not come within two minutes: see %s", what, filepath.Join(d.dir, "serve.log"))
		case <-tick.C:
		}
		var out []sourceStatus
		if err := d.ask(&out, "status", "shop"); err == nil && len(out) == 1 && ok(&out[0]) {
			return nil
		}
	}
}

// ask runs a command for its JSON.
func (d *demo) ask(into any, args ...string) error {
	var out, log strings.Builder
	if code := run(d.a.ctx, append([]string{"--config", d.config}, append(args, "-o", "json")...), &out, &log); code != 0 {
		return fmt.Errorf("afterimage %s: exit code %d: %s", strings.Join(args, " "), code, log.String())
	}
	return json.Unmarshal([]byte(out.String()), into)
}

// show runs a command for the reader.
func (d *demo) show(args ...string) error {
	fmt.Fprintf(d.a.stdout, "\n$ afterimage %s\n", strings.Join(args, " "))
	if code := run(d.a.ctx, append([]string{"--config", d.config}, args...), d.a.stdout, d.a.stderr); code != 0 {
		return fmt.Errorf("afterimage %s: exit code %d", strings.Join(args, " "), code)
	}
	return nil
}

// mistakes drops a collection and damages documents.
func (d *demo) mistakes() error {
	d.say("A mistake: a script sets the total of %d orders to -1, then drops shop.customers.", demoDamaged)
	if _, err := d.shop.Collection("orders").UpdateMany(d.a.ctx, bson.M{"_id": bson.M{"$lt": demoDamaged}}, bson.M{"$set": bson.M{"total": -1}}); err != nil {
		return err
	}
	if err := d.shop.Collection("customers").Drop(d.a.ctx); err != nil {
		return err
	}
	acked := time.Now()
	var events []struct {
		ID   string          `json:"id"`
		Kind string          `json:"kind"`
		Time afterimage.Time `json:"time"`
	}
	err := d.await("the drop in the bucket", func(*sourceStatus) bool {
		return d.ask(&events, "events", "shop", "--destructive") == nil && len(events) > 0
	})
	if err != nil {
		return err
	}
	d.say("It is in the bucket %.1f s after the database acknowledged it (in the stream, fsynced, within milliseconds): the RPO.", time.Since(acked).Seconds())
	return d.show("events", "shop", "--destructive")
}

// collectionBack restores the dropped collection into the live cluster.
func (d *demo) collectionBack() error {
	var events []struct {
		ID string `json:"id"`
	}
	if err := d.ask(&events, "events", "shop", "--destructive"); err != nil {
		return err
	}
	d.say("Putting the collection back, as it was just before, under its own name, into the live cluster.")
	began := time.Now()
	at := "before:" + events[len(events)-1].ID
	if err := d.show("restore", "shop", "--at", at, "--include", "shop.customers", "--to", d.set.URI()); err != nil {
		return err
	}
	n, err := d.shop.Collection("customers").CountDocuments(d.a.ctx, bson.D{})
	if err != nil {
		return err
	}
	if n != demoCustomers {
		return fmt.Errorf("%d customers after the restore, want %d", n, demoCustomers)
	}
	d.say("%d documents and their index are back and verified, %.1f s after the command: the RTO.", n, time.Since(began).Seconds())
	return nil
}

// documentsBack restores the damaged documents in place.
func (d *demo) documentsBack() error {
	d.say("Now the damaged orders. The history of the first one shows when it began:")
	if err := d.show("history", "shop", "shop.orders", "0"); err != nil {
		return err
	}
	var versions []struct {
		Time afterimage.Time `json:"time"`
	}
	if err := d.ask(&versions, "history", "shop", "shop.orders", "0"); err != nil {
		return err
	}
	damaged := versions[len(versions)-1].Time
	at := (damaged - 1).String()
	args := []string{"restore", "shop", "--at", at, "--include", "shop.orders", "--overwrite", "--to", d.set.URI()}
	for i := range demoDamaged {
		args = append(args, "--id", fmt.Sprint(i))
	}
	d.say("Putting just those %d documents back as they were at %s.", demoDamaged, at)
	var report restorer.Report
	fmt.Fprintf(d.a.stdout, "\n$ afterimage restore shop --at %s --include shop.orders --id 0 --id 1 ... --overwrite --to ...\n", at)
	if err := d.ask(&report, args...); err != nil {
		return err
	}
	bad, err := d.shop.Collection("orders").CountDocuments(d.a.ctx, bson.M{"total": -1})
	if err != nil {
		return err
	}
	if bad != 0 {
		return fmt.Errorf("%d orders are still damaged", bad)
	}
	d.say("%d documents put back in %s; nothing else was touched, and the writer never stopped.", len(report.Changes), report.Elapsed.Round(time.Millisecond))
	return d.show("verify", "shop")
}

func (d *demo) farewell() {
	d.say("The database is stopped now; the bucket stays in %s and answers by itself. Try:", d.dir)
	for _, s := range []string{"status shop", "events shop", "history shop shop.orders 7", "snapshot shop --at latest --out dump"} {
		fmt.Fprintf(d.a.stdout, "    bin/afterimage --config %s %s\n", d.config, s)
	}
}
