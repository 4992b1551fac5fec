package restorer

import (
	"context"

	"github.com/afterimagedb/afterimage/dialect"
)

// Source is the state of a protected cluster at one time. All methods may be called at once from several goroutines, and
// Rows more than once for one table: each reading returns the same rows in the same order.
type Source interface {
	// Tables returns every table that was live at T. For MongoDB this includes the system.views of each database,
	// system.buckets.* of time-series, system.js, and admin.system.users and admin.system.roles.
	Tables(ctx context.Context) ([]dialect.Table, error)
	// Rows reads the rows of t in the order of their keys, or of their birth when t.Ordered.
	Rows(ctx context.Context, t dialect.Table) (Rows, error)
}

// PointSource is a [Source] that can read one row without reading its table. Restores of chosen documents use it.
type PointSource interface {
	// Row returns the row of t with the given key, or nil when there was none at T. The bytes belong to the caller.
	Row(ctx context.Context, t dialect.Table, key []byte) ([]byte, error)
}

// Rows is a reading of a table. Key and Body are valid until the next call of Next. Err is valid after Next returned false.
type Rows interface {
	Next() bool
	Key() []byte
	Body() []byte
	Err() error
	Close() error
}
