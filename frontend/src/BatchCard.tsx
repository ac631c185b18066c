import { memo } from "react";

import type { Batch, CV, CVResult, CVStatus } from "@/utils/progress";

const STATUS_LABEL: Record<CVStatus, string> = {
  queued: "Waiting",
  extracting: "Reading the text",
  analysing: "Finding the details",
  done: "Done",
  failed: "Failed",
};

export const BatchCard = memo(function BatchCard({ batch }: { readonly batch: Batch }) {
  const finished = batch.done + batch.failed;
  const running = batch.status === "processing";
  return (
    <section
      className="card batch"
      {...dataAttributes("batch", batch.batch_id, batch)}
      aria-labelledby={`batch-${batch.batch_id}`}
    >
      <header className="batch-head">
        <h2 id={`batch-${batch.batch_id}`}>{batch.total === 1 ? "1 CV" : `${batch.total} CVs`}</h2>
        <time className="muted" dateTime={batch.created_at}>
          {localTime(batch.created_at)}
        </time>
        <span className="batch-state">
          {running && `${finished} of ${batch.total} finished`}
          {/* Always present and filled once, so that a screen reader announces only the outcome. */}
          <output data-failed={batch.failed > 0}>{running ? "" : outcome(batch)}</output>
        </span>
      </header>
      {running && <progress value={batch.progress} max={100} aria-label="Progress of the batch" />}
      <ul className="cvs">
        {batch.cvs.map((cv) => (
          <CVRow key={cv.cv_id} cv={cv} />
        ))}
      </ul>
    </section>
  );
});

const CVRow = memo(function CVRow({ cv }: { readonly cv: CV }) {
  const running = cv.status !== "done" && cv.status !== "failed";
  return (
    <li className="cv" {...dataAttributes("cv", cv.cv_id, cv)}>
      <span className="kind" aria-hidden="true">
        {extension(cv.filename)}
      </span>
      <div className="cv-body">
        <div className="cv-head">
          <h3>{cv.filename}</h3>
          <span className="muted">{bytes(cv.size)}</span>
          <span className="status" data-testid="cv-status">
            {STATUS_LABEL[cv.status]}
          </span>
        </div>
        {running && <progress value={cv.progress} max={100} aria-label={`Progress of ${cv.filename}`} />}
        {cv.error !== null && (
          <p className="problem" data-testid="cv-error">
            {cv.error}
          </p>
        )}
        {cv.result !== null && <Result result={cv.result} />}
      </div>
    </li>
  );
});

/** What the style sheet and the tests select by. */
function dataAttributes(kind: "batch" | "cv", id: string, { status, progress }: Batch | CV) {
  return {
    "data-testid": kind,
    [`data-${kind}-id`]: id,
    "data-status": status,
    "data-progress": progress,
  };
}

function Result({ result: { name, email, phone, skills } }: { readonly result: CVResult }) {
  return (
    <dl className="result" data-testid="cv-result">
      <Field label="Name" value={name} />
      <Field label="Email" value={email} href={`mailto:${email}`} />
      <Field label="Phone" value={phone} href={`tel:${phone?.replaceAll(/[^+\d]/gu, "")}`} />
      <div className="skills">
        <dt>Skills</dt>
        <dd>
          {skills.length === 0 ? (
            <span className="muted">none found</span>
          ) : (
            <ul>
              {skills.map((skill) => (
                <li key={skill}>{skill}</li>
              ))}
            </ul>
          )}
        </dd>
      </div>
    </dl>
  );
}

interface FieldProps {
  readonly label: string;
  readonly value: string | null;
  readonly href?: string;
}

function Field({ label, value, href }: FieldProps) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>
        {value === null || value === "" ? (
          <span className="muted">not found</span>
        ) : href === undefined ? (
          value
        ) : (
          <a href={href}>{value}</a>
        )}
      </dd>
    </div>
  );
}

function outcome({ total, done, failed }: Batch): string {
  if (failed === 0) return total === 1 ? "Finished" : `All ${total} finished`;
  if (done === 0) return total === 1 ? "Failed" : `All ${total} failed`;
  return `${done} finished, ${failed} failed`;
}

function extension(filename: string): string {
  const ending = filename.split(".").pop() ?? "";
  return ending === filename || ending.length > 4 ? "?" : ending.toUpperCase();
}

function bytes(size: number): string {
  if (size < 1_000_000) return `${Math.max(1, Math.round(size / 1_000))} kB`;
  return `${(size / 1_000_000).toFixed(1)} MB`;
}

/** The time, with the date unless it is today. */
function localTime(iso: string): string {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString("en-GB", { ...(today ? {} : { dateStyle: "medium" }), timeStyle: "short" });
}
