// Tables that are read from a static host in ranges: only the columns and row groups that are needed, each once.

import { parquetMetadataAsync, parquetRead } from "./vendor/hyparquet.js";

// A file as hyparquet takes it. Of a host that knows no ranges, the whole file comes at the first read.
function remote(url, byteLength) {
  let whole = null;
  return {
    byteLength,
    async slice(start, end = byteLength) {
      if (whole) return (await whole).slice(start, end);
      const response = await fetch(url, { headers: { Range: `bytes=${start}-${end - 1}` } });
      if (!response.ok) throw Object.assign(new Error(`${url}: ${response.statusText}`), { status: response.status });
      if (response.status === 206) return response.arrayBuffer();
      whole = response.arrayBuffer();
      return (await whole).slice(start, end);
    },
  };
}

export class Table {
  static async open(url, byteLength) {
    const file = remote(url, byteLength);
    return new Table(file, await parquetMetadataAsync(file, { initialFetchSize: 1 << 16 }));
  }

  constructor(file, metadata) {
    let start = 0;
    this.groups = metadata.row_groups.map(({ num_rows: rows, columns }) => {
      const range = { start, rows: Number(rows) };
      start += range.rows;
      for (const { meta_data: about } of columns) {
        const { min_value: low, max_value: high } = about.statistics ?? {};
        range[about.path_in_schema[0]] = { low, high };
      }
      return range;
    });
    Object.assign(this, { file, metadata, size: start, chunks: new Map() });
  }

  // The number of the row group of a row.
  groupOf(row) {
    return Math.floor(row / (this.groups[0]?.rows ?? 1)); // all have the same size but for the last
  }

  // Columns of a row group, by name.
  async read(group, columns) {
    const unread = columns.filter((column) => !this.chunks.has(`${group} ${column}`));
    if (unread.length) {
      const { start, rows } = this.groups[group];
      const read = this.values(unread, start, start + rows);
      for (const column of unread) {
        const key = `${group} ${column}`;
        this.chunks.set(
          key,
          read.then((values) => values[column]),
        );
        read.catch(() => this.chunks.delete(key)); // it is read again when it is needed again
      }
    }
    const values = await Promise.all(columns.map((column) => this.chunks.get(`${group} ${column}`)));
    return Object.fromEntries(columns.map((column, at) => [column, values[at]]));
  }

  // Columns of some rows, by name.
  async values(columns, rowStart, rowEnd) {
    const { file, metadata } = this;
    const found = Object.fromEntries(columns.map((column) => [column, new Array(rowEnd - rowStart)]));
    const onChunk = ({ columnName, columnData, rowStart: start }) => {
      for (let at = 0; at < columnData.length; at++) {
        const row = start + at - rowStart;
        if (row >= 0 && row < rowEnd - rowStart) found[columnName][row] = columnData[at];
      }
    };
    if (rowEnd > rowStart) await parquetRead({ file, metadata, columns, rowStart, rowEnd, onChunk });
    return found;
  }
}
