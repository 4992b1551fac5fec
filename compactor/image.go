package compactor

import (
	"context"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/fold"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// image builds the image of a part at a time and commits it. Tables that are gone by then are left out.
func (c *Compactor) image(ctx context.Context, s *manifest.State, j *imageJob) error {
	began := time.Now()
	live, err := c.liveTables(ctx, s, j.at)
	if err != nil {
		return err
	}
	out := c.newOutput(segment.WriterOptions{Kind: segment.Image}, nil)
	skip := func(id afterimage.TableID) bool { return !live[id] }
	err = c.rowsAt(ctx, s, j.part, j.at, skip, func(r *fold.Row) error {
		return out.append(ctx, &afterimage.Change{
			Time: j.at, Order: afterimage.OrderImage, Born: r.Born, Lane: r.Lane,
			Op: afterimage.OpInsert, From: afterimage.FromImage, Table: r.Table, Key: r.Key, Body: r.Body,
		})
	})
	if err != nil {
		return err
	}
	metas, err := out.close(ctx)
	if err != nil {
		return err
	}
	im := manifest.Image{ID: segment.NewID(), Range: j.part, MinTime: j.at, Time: j.at}
	for _, m := range metas {
		im.Segments = append(im.Segments, m.ID)
	}
	_, err = c.committer.Commit(ctx, func(s *manifest.State) (manifest.Edit, error) {
		if done, err := exchanged(s, nil, metas); done || err != nil {
			return manifest.Edit{}, err
		}
		return manifest.Edit{AddSegments: metas, AddImages: []manifest.Image{im}}, nil
	})
	if err == nil {
		c.metrics.images.Inc()
		c.log.Info("image built", "at", j.at.String(), "segments", len(metas), "seconds", time.Since(began).Seconds())
	}
	return err
}

// liveTables reads which tables exist at a time, and adds our own.
func (c *Compactor) liveTables(ctx context.Context, s *manifest.State, at afterimage.Time) (map[afterimage.TableID]bool, error) {
	live := map[afterimage.TableID]bool{afterimage.CatalogTable: true, afterimage.EventsTable: true}
	err := c.rowsAt(ctx, s, afterimage.TableRange(afterimage.CatalogTable), at, nil, func(r *fold.Row) error {
		var id afterimage.TableID
		copy(id[:], r.Key)
		live[id] = true
		return nil
	})
	return live, err
}

// rowsAt calls fn for each row of a range as it stands at a time.
func (c *Compactor) rowsAt(ctx context.Context, s *manifest.State, r afterimage.Range, at afterimage.Time, skip func(afterimage.TableID) bool, fn func(*fold.Row) error) error {
	for _, piece := range s.Cover(r, at) {
		if err := c.pieceAt(ctx, piece, at, skip, fn); err != nil {
			return err
		}
	}
	return nil
}

func (c *Compactor) pieceAt(ctx context.Context, p manifest.Piece, at afterimage.Time, skip func(afterimage.TableID) bool, fn func(*fold.Row) error) error {
	in, err := p.Open(ctx, c.o.Bucket, at)
	if err != nil {
		return err
	}
	rows := fold.New(in, c.o.Dialect, skip)
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Row()); err != nil {
			return err
		}
	}
	return rows.Err()
}
