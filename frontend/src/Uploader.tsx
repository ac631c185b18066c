import { useCallback, useEffect, useId, useRef, useState } from "react";

import { ApiError, uploadBatch } from "@/utils/api";
import type { Batch } from "@/utils/progress";

interface Upload {
  readonly key: number;
  readonly files: readonly File[];
  /** The fraction that was sent, 0 to 1. */
  readonly sent: number;
  /** A message for the user when it failed, else empty. */
  readonly problem: string;
  /** Whether uploading the same files again may succeed. */
  readonly retryable: boolean;
}

interface UploaderProps {
  readonly onUploaded: (batch: Batch) => void;
  readonly onSignedOut: () => void;
}

export function Uploader({ onUploaded, onSignedOut }: UploaderProps) {
  const [uploads, setUploads] = useState<readonly Upload[]>([]);
  const lastKey = useRef(0);
  const hint = useId();

  const drop = useCallback((key: number) => setUploads((all) => all.filter((one) => one.key !== key)), []);

  const start = useCallback(
    async (files: readonly File[]) => {
      if (files.length === 0) return;
      const key = (lastKey.current += 1);
      const change = (changes: Partial<Upload>) =>
        setUploads((all) => all.map((one) => (one.key === key ? { ...one, ...changes } : one)));
      setUploads((all) => [...all, { key, files, sent: 0, problem: "", retryable: false }]);
      try {
        onUploaded(await uploadBatch(files, (sent) => change({ sent })));
        drop(key);
      } catch (error) {
        const status = error instanceof ApiError ? error.status : 0;
        change({
          problem: error instanceof Error ? error.message : String(error),
          retryable: status < 400 || status === 429 || status >= 500,
        });
        if (status === 401) onSignedOut();
      }
    },
    [onUploaded, onSignedOut, drop],
  );

  const dragging = useFileDrop((files) => void start(files));

  return (
    <section aria-label="Add CVs">
      <label className="drop" data-dragging={dragging} data-testid="dropzone">
        <svg viewBox="0 0 24 24" width="32" height="32" aria-hidden="true">
          <path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M4 15v3a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-3" />
        </svg>
        <span className="drop-title">
          {dragging ? (
            "Drop to upload"
          ) : (
            <>
              Drop CVs here, or <u>choose files</u>
            </>
          )}
        </span>
        <span id={hint} className="muted">
          PDF, Word (.docx) or plain text; several files at once
        </span>
        <input
          className="visually-hidden"
          type="file"
          multiple
          accept=".pdf,.docx,.dotx,.docm,.txt"
          aria-label="Choose CVs to add"
          aria-describedby={hint}
          data-testid="file-input"
          onChange={({ currentTarget }) => {
            void start([...(currentTarget.files ?? [])]);
            // Choosing the same file again must fire a change event.
            currentTarget.value = "";
          }}
        />
      </label>
      <ul className="uploads">
        {uploads.map(({ key, files, sent, problem, retryable }) => (
          <li key={key} className="card upload" data-testid="upload" data-failed={problem !== ""}>
            <span className="upload-files">{fileNames(files)}</span>
            {problem === "" ? (
              <>
                <span className="muted">
                  {sent < 1 ? `Uploading, ${Math.floor(sent * 100)}%` : "Checking"}
                </span>
                <progress value={sent} aria-label={`Uploading ${fileNames(files)}`} />
              </>
            ) : (
              <>
                <p className="problem" role="alert">
                  {problem}
                </p>
                <span className="actions">
                  {retryable && (
                    <button
                      type="button"
                      className="button quiet"
                      onClick={() => {
                        drop(key);
                        void start(files);
                      }}
                    >
                      Try again
                    </button>
                  )}
                  <button type="button" className="button quiet" onClick={() => drop(key)}>
                    Dismiss
                  </button>
                </span>
              </>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

function fileNames(files: readonly File[]): string {
  const [first, ...others] = files;
  if (first === undefined) return "";
  return others.length === 0 ? first.name : `${first.name} and ${others.length} more`;
}

/** Accepts files dropped anywhere on the page: outside the drop zone the browser would navigate to the file. */
function useFileDrop(onFiles: (files: readonly File[]) => void): boolean {
  const [dragging, setDragging] = useState(false);
  const latest = useRef(onFiles);
  useEffect(() => {
    latest.current = onFiles;
  });
  useEffect(() => {
    const listening = new AbortController();
    const { signal } = listening;
    const over = (event: DragEvent) => {
      if (event.dataTransfer?.types.includes("Files") !== true) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      setDragging(true);
    };
    window.addEventListener("dragenter", over, { signal });
    window.addEventListener("dragover", over, { signal });
    window.addEventListener(
      "dragleave",
      // Null when the pointer left the window, not just one element.
      ({ relatedTarget }) => relatedTarget === null && setDragging(false),
      { signal },
    );
    window.addEventListener(
      "drop",
      (event) => {
        setDragging(false);
        if (event.dataTransfer === null || event.dataTransfer.files.length === 0) return;
        event.preventDefault();
        latest.current([...event.dataTransfer.files]);
      },
      { signal },
    );
    return () => listening.abort();
  }, []);
  return dragging;
}
