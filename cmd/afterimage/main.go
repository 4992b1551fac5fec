// Command afterimage protects databases continuously and restores them to any moment. It only wires the stages together:
// one file per command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/afterimagedb/afterimage"
)

// version is set by the linker.
var version = "devel"

// Exit codes of every command.
const (
	exitDone           = 0
	exitFailed         = 1
	exitUsage          = 2
	exitNotRecoverable = 3
)

type cli struct {
	Config    string `help:"Configuration file; default afterimage.yaml here, if there is one." type:"path" env:"AFTERIMAGE_CONFIG" placeholder:"FILE"`
	LogFormat string `help:"Log lines as text or json." enum:"text,json" default:"text"`
	Verbose   bool   `short:"v" help:"Log details."`

	Demo     demoCmd     `cmd:"" help:"Protect, damage and restore a real database on this machine, with a tour."`
	Serve    serveCmd    `cmd:"" help:"Protect the sources of the configuration: everything in one process, or the roles given."`
	Listen   listenCmd   `cmd:"" help:"Tail one source into the stream."`
	Sources  sourcesCmd  `cmd:"" help:"List the sources of the configuration."`
	Lanes    lanesCmd    `cmd:"" help:"List the logs of a source and how far each is covered."`
	Status   statusCmd   `cmd:"" help:"Show horizons, windows, gaps and sizes."`
	Events   eventsCmd   `cmd:"" help:"List DDL and mass deletes, each with the time just before it."`
	History  historyCmd  `cmd:"" help:"Show every version of one document."`
	Diff     diffCmd     `cmd:"" help:"Show what changed in a namespace between two times."`
	Snapshot snapshotCmd `cmd:"" help:"Write the state at a time to files."`
	Restore  restoreCmd  `cmd:"" help:"Put the state at a time into a database."`
	Verify   verifyCmd   `cmd:"" help:"Check every object of a source, and with --deep a whole read."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run parses and executes one command and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("afterimage"),
		kong.Description("Continuous protection for MongoDB: restore to any moment, byte for byte."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.UsageOnError(),
		kong.Vars{"at": "The time, inclusive: " + atHelp},
	)
	if err != nil {
		fmt.Fprintln(stderr, "afterimage:", err)
		return exitFailed
	}
	k, err := parser.Parse(joinTimes(args))
	if exited >= 0 { // --help has been printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "afterimage: %s: run `afterimage --help`\n", err)
		return exitUsage
	}
	a := &app{ctx: ctx, cli: &c, stdout: stdout, stderr: stderr, log: logger(&c, stderr)}
	defer a.close()
	return report(stderr, k.Run(a))
}

// joinTimes makes `--at -15m` one argument: the parser would take -15m for a flag.
func joinTimes(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if (a == "--at" || a == "--from" || a == "--to") && i+1 < len(args) && len(args[i+1]) > 1 && args[i+1][0] == '-' && args[i+1][1] >= '0' && args[i+1][1] <= '9' {
			i++
			a += "=" + args[i]
		}
		out = append(out, a)
	}
	return out
}

// report prints an error and maps it to its exit code: the one place where this is decided.
func report(stderr io.Writer, err error) int {
	var usage *afterimage.UsageError
	var never *afterimage.NotRecoverableError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "afterimage: interrupted")
		return exitFailed
	case errors.As(err, &never):
		fmt.Fprintln(stderr, "afterimage:", err)
		return exitNotRecoverable
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "afterimage:", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "afterimage:", err)
	return exitFailed
}

func logger(c *cli, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{}
	if c.Verbose {
		o.Level = slog.LevelDebug
	}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintln(a.stdout, "afterimage", version)
	return err
}
